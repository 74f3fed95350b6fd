"""How far a piece of work is, for whoever waits for it: the time that is left, and a count that the work moves without
knowing who looks, in this process or, through a file, in another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_COUNTERS: ContextVar[tuple[Callable[[float], object], ...]] = ContextVar("counters", default=())
WRITE_EVERY = 0.5
"""Seconds between two writes of a count into a file."""


def time_left(done: float, total: float, seconds: float, since: float = 0.0) -> float | None:
    """Seconds until the rest is done at the pace up to now; None before there is a pace.

    Args:
        done, total: of the same units.
        seconds: that ``done`` took.
        since: seconds that passed since then, in which no further unit was finished.
    """
    if done <= 0 or seconds <= 0:
        return None
    return max(0.0, (total - done) * seconds / done - since)


def advance(units: float) -> None:
    """Tell whoever counts that so many more units are done."""
    for tell in _COUNTERS.get():
        tell(units)


@contextmanager
def counted(tell: Callable[[float], object]) -> Iterator[None]:
    """Let ``tell`` hear of all units that are done inside."""
    token = _COUNTERS.set((*_COUNTERS.get(), tell))
    try:
        yield
    finally:
        _COUNTERS.reset(token)


@contextmanager
def counted_in(file: Path | None) -> Iterator[None]:
    """Write into a file how many units are done inside, for another process to read (``count_in``).

    A count is no part of the work: where it cannot be written, the work goes on.
    """
    if file is None:
        yield
        return
    done = written = 0.0

    def tell(units: float) -> None:
        nonlocal done, written
        done += units
        if time.monotonic() - written >= WRITE_EVERY:
            written = time.monotonic()
            with suppress(OSError):
                file.write_text(repr(done), encoding="utf-8")

    with counted(tell):
        yield


def count_in(file: Path) -> float:
    """What another process counted there up to now; 0 where nothing can be read yet."""
    try:
        return float(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
