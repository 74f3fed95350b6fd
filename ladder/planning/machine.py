"""How fast this machine is when it is alone: measured for a second at the first use, and kept for the user.

What is measured is processor time, so that other work on the machine changes little of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil
import torch

from ladder.system.files import save_text

FORM = 1
"""Of what is kept; another one is measured anew."""
BUSY = 0.2
"""Share of the cores that other work has from which on a person is told, and a measurement is taken again next time."""
_SIDE, _LONG, _SHORT = 1024, 2**22, 64
_SECONDS = 0.3
"""For which each of the three is measured."""


@dataclass(frozen=True)
class Speed:
    """What this machine does with a number of threads.

    Args:
        flops: operations a second of a large float32 product.
        traffic: bytes a second that an elementwise operation reads and writes in memory.
        call: seconds of one small operation.
        busy: share of the threads' time that other work had while this was measured, 0 to 1.
        day: on which that was, YYYY-MM-DD.
    """

    flops: float
    traffic: float
    call: float
    busy: float
    day: str


def facts(threads: int) -> dict[str, str]:
    """What a measurement depends on."""
    return {
        "form": str(FORM),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        "torch": torch.__version__,
    }


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def kept_in(threads: int) -> Path:
    """Where the measurement of this machine lies: with the user and not in a home, which several machines may share."""
    name = hashlib.sha256(json.dumps(facts(threads), sort_keys=True).encode()).hexdigest()[:12]
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "ladder" / f"machine-{name}.json"


@cache
def speed_of(threads: int) -> Speed:
    """As it was measured before, else measured now. One that was measured beside other work is measured again, and the
    quieter one kept. A cache that cannot be written is none."""
    file = kept_in(threads)
    known = read(file)
    if known is not None and known.busy < BUSY:
        return known
    found = measure(threads)
    if known is not None and known.busy <= found.busy:
        return known
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_text(file, json.dumps({"facts": facts(threads), "speed": asdict(found)}, indent=1))
    return found


def read(file: Path) -> Speed | None:
    """What was kept; None where that is nothing, or not whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = Speed(**json.loads(file.read_text(encoding="utf-8"))["speed"])
        return kept if min(kept.flops, kept.traffic, kept.call) > 0 else None
    return None


@torch.inference_mode()
def measure(threads: int) -> Speed:
    """Measure for about a second."""
    square, long, short = torch.randn(_SIDE, _SIDE), torch.randn(_LONG), torch.randn(_SHORT)
    product, scaled = torch.empty_like(square), torch.empty_like(long)
    with _threads(threads):
        busy, round_of_products = _alone(lambda: torch.mm(square, square, out=product), threads)
        _, pass_over_memory = _alone(lambda: torch.mul(long, 1.5, out=scaled), threads)
        _, call = _alone(lambda: short.mul(1.5), 1)
    today = datetime.now(UTC).date().isoformat()
    return Speed(2 * _SIDE**3 / round_of_products, 2 * long.nbytes / pass_over_memory, call, busy, today)


def busy_now() -> float:
    """Share of the cores that work has now while this process waits a moment, 0 to 1."""
    return psutil.cpu_percent(interval=_SECONDS) / 100


def _alone(work: Callable[[], object], threads: int) -> tuple[float, float]:
    """Share of the threads' time that others had, and seconds of one piece of work without them."""
    work()
    began, spent, rounds = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < _SECONDS:
        work()
        rounds += 1
    wall, own = time.perf_counter() - began, time.process_time() - spent
    return min(1.0, max(0.0, 1 - own / (wall * threads))), own / threads / rounds


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
