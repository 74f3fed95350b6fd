"""Paired rounds: contenders take turns in one process, so that a busy machine slows all of them alike.

A ratio is taken within each round and then summarised, never between medians of different rounds.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

LISTENERS: list[Callable[[str], object]] = []
"""Who hears which contender's turn it is."""


@dataclass(frozen=True)
class Spread:
    """The median of some figures, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@contextmanager
def listening(tell: Callable[[str], object]) -> Iterator[None]:
    """Let somebody hear whose turn it is."""
    LISTENERS.append(tell)
    try:
        yield
    finally:
        LISTENERS.remove(tell)


def paired_rounds(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round, in the order A B C A B C.

    Args:
        contenders: what is timed, by name; what they return is dropped before the next one starts.
        rounds: timed rounds.
        warmup: rounds before them that are not counted, in which code is compiled and memory is first touched.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with _nothing_but_new_garbage():
        for number in range(warmup + rounds):
            for name, run in contenders.items():
                for tell in LISTENERS:
                    tell(f"{name}, " + (f"round {number - warmup + 1} of {rounds}" if number >= warmup else "warm-up"))
                taken = _seconds(run, clock)
                if number >= warmup:
                    seconds[name].append(taken)
    return seconds


@contextmanager
def _nothing_but_new_garbage() -> Iterator[None]:
    """Lets the collector look at what comes from now on: the modules alone would keep it busy for 0.4 s a contender."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    start = clock()
    run()
    return clock() - start


def ratio(seconds: Mapping[str, Sequence[float]], name: str, against: str) -> Spread:
    """How many times as long ``name`` takes as ``against``: one ratio a round.

    Raises:
        ValueError: the two were not timed in the same rounds.
    """
    return Spread.of([mine / theirs for mine, theirs in zip(seconds[name], seconds[against], strict=True)])


def best_times(contenders: Mapping[str, Callable[[], object]], repeats: int = 2) -> dict[str, float]:
    """The smallest single time of each, the fastest first, out of ``repeats`` after a warm-up: to choose a setting
    before the rounds that count."""
    seconds = paired_rounds(contenders, repeats)
    return dict(sorted(((name, min(values)) for name, values in seconds.items()), key=lambda pair: pair[1]))
