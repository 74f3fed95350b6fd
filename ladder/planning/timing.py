"""Step time, in seconds, measured on one step for real; and what several processes make of their times."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladder.data.batches import SOURCES, Batch
from ladder.distill import Forecast
from ladder.planning.start import Start
from ladder.setup import loss_elements, steering_of, teacher_spec
from ladder.teachers import CacheSettings, Signal, TeacherSpec, open_teacher
from ladder.train.spec import TrainingSpec
from ladder.train.trainer import Trainer


@dataclass(frozen=True)
class ProcessSeconds:
    """Seconds that one process needs for one step when it is alone.

    Args:
        reading: without a cache.
        recalling: when everything is cached; the student's is the same.
    """

    reading: float
    recalling: float

    def mean(self, read_share: float) -> float:
        """Over a run in which this share must be read."""
        return read_share * self.reading + (1 - read_share) * self.recalling


def step_seconds(
    student: float,
    teachers: Sequence[float],
    threads: int,
    cores: float,
    courier: float = 0.0,
    *,
    ranks: int = 1,
    exchange: float = 0.0,
) -> float:
    """One step of the stream, in which teachers work ahead of the student.

    The slowest process sets the pace, and so does the sum of all work where the cores do not suffice for all at once:
    ranks that share cores do a step's work no sooner.

    Args:
        student: seconds of one step of one rank that has it all, alone, with ``threads`` threads.
        teachers: seconds of one step of each of their processes, likewise.
        courier: seconds of one core for making the batch.
        ranks: among which the student's work is divided; ``exchange`` seconds go to their gradients.
    """
    shared = (threads * (student + sum(teachers)) + courier) / cores + exchange
    return max(student / ranks + exchange, *teachers, courier, shared)


EXCHANGED = {"cpu": 1e9, "cuda": 50e9}
"""Bytes a second between two ranks, assumed: gloo over memory, NCCL over links between GPUs."""


def exchange_seconds(size: int, ranks: int, device: str, *, sharded: bool) -> float:
    """Seconds in which ranks bring together gradients of so many bytes: a ring sends each rank's part round twice
    (Patarasuk and Yuan 2009), and three times where weights are split and gathered for both passes."""
    rounds = 3 if sharded else 2
    return rounds * (ranks - 1) / ranks * size / EXCHANGED[torch.device(device).type]


REPEATS = 3
"""Timed steps after the one that warms up. Their mean counts: what else runs here will slow the run, too."""
LOOKED_AT = 512
"""New tokens whose targets are compared with their labels."""
SEEN = 50
"""Steps of which the one with the median number of tokens is taken."""


@dataclass(frozen=True)
class StepTiming:
    """Seconds of one step, each process alone.

    Args:
        student: its step.
        teachers: reading the step's batch, and recalling it from a cache of the manifest's kind.
        courier: making the batch.
        start: more that the first step takes, for compiling where the loss is compiled.
        forecast: what the recipe will not teach of the step's new tokens; None where nothing is distilled.
    """

    student: float
    teachers: tuple[ProcessSeconds, ...]
    courier: float
    start: float
    forecast: Forecast | None


def time_step(ahead: Start, start: Path, devices: dict[str, str], threads: int) -> StepTiming:
    """Warm up once, then time the teachers' signals and the student's step of a typical batch.

    Args:
        start: the folder that the student starts as.
        devices: torch device of ``student`` and of each teacher, such as ``teacher1``.
        threads: torch threads, as each actor would have.
    """
    with tempfile.TemporaryDirectory(prefix="ladder-probe-") as temporary, _as_it_was():
        step = _typical(ahead)
        courier, batches = _timed(lambda: ahead.batches(step))
        manifest, kind = ahead.request.manifest, ahead.request.manifest.runtime.signal_cache
        cache = None if kind == "off" else CacheSettings(kind, 2**40, Path(temporary) / "signals")
        said, teachers = {}, []
        for number in ahead.numbers:
            device, folder, made = devices[f"teacher{number}"], ahead.teachers.get(number, start), None
            if number in ahead.made:
                made = replace(ahead.made[number], material=replace(ahead.made[number].material, tokenizer=start))
            steering = steering_of(ahead.request, number, folder)
            spec = teacher_spec(
                manifest, folder, number, device=device, threads=threads, cache=cache, made=made, steering=steering
            )
            work, said[number] = _teacher(spec, batches)
            teachers.append(work)
        trainer = _trainer(ahead, start, devices["student"], threads, Path(temporary))
        forecast = _forecast(trainer, batches, said) if ahead.speakers else None
        seconds = [trainer.step(step, batches, said).seconds for step in range(1 + REPEATS)]
    mean = sum(seconds[1:]) / REPEATS
    return StepTiming(mean, tuple(teachers), courier, max(0.0, seconds[0] - mean), forecast)


def _typical(ahead: Start) -> int:
    steps = range(min(SEEN, ahead.request.manifest.training_params.steps))
    return sorted(steps, key=lambda step: sum(batch.tokens for batch in ahead.batches(step)))[len(steps) // 2]


def _teacher(spec: TeacherSpec, batches: Sequence[Batch]) -> tuple[ProcessSeconds, list[Signal]]:
    """Seconds with and without the cache, and what it said."""
    teacher = open_teacher(spec)
    cache, teacher.cache = teacher.cache, None
    reading, said = _timed(lambda: [teacher.signal(batch) for batch in batches])
    if cache is None:
        return ProcessSeconds(reading, reading), said
    teacher.cache = cache
    recalling, said = _timed(lambda: [teacher.signal(batch) for batch in batches])
    return ProcessSeconds(reading, recalling), said


def _trainer(ahead: Start, start: Path, device: str, threads: int, folder: Path) -> Trainer:
    manifest, name = ahead.request.manifest, str(ahead.request.child)
    elements = loss_elements(ahead.batches, manifest.training_params.steps, ahead.config)
    teachers = {number: ahead.teachers.get(number, start) for number in ahead.numbers}
    told = TrainingSpec(manifest, start, teachers, folder / "run", name, device, threads, elements)
    return Trainer(replace(told, headless=frozenset(ahead.made)))


def _forecast(trainer: Trainer, batches: Sequence[Batch], said: dict[int, list[Signal]]) -> Forecast:
    """What the recipe will not teach, over the first ``LOOKED_AT`` new tokens of a step."""
    found, left = Forecast(), LOOKED_AT
    for place, batch in enumerate(batches):
        new_N = _whole(np.flatnonzero(batch.source_N == SOURCES.index("new")), batch.example_N, left)
        if len(new_N):
            found += trainer.forecast(batch, {number: signals[place] for number, signals in said.items()}, new_N)
        left -= len(new_N)
    return found


def _whole(tokens_n: np.ndarray, example_N: np.ndarray, most: int) -> np.ndarray:
    """The first of these tokens, up to the end of the example in which there are enough."""
    if len(tokens_n) <= most:
        return tokens_n
    last = example_N[tokens_n[max(0, most - 1)]]
    return tokens_n[: int(np.flatnonzero(example_N[tokens_n] == last)[-1]) + 1] if most > 0 else tokens_n[:0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do it once to warm up, then time it; mean seconds, and what it gave."""
    result = work()
    began = time.perf_counter()
    for _ in range(REPEATS):
        result = work()
    return (time.perf_counter() - began) / REPEATS, result


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Threads and random numbers of this process are afterwards what they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
