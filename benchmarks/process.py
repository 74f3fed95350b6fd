"""One measurement in a process of its own, and the memory that a call takes at its peak."""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_subprocess(module: str, task: Mapping[str, Any], timeout: float = 1800, *, quick: bool = False) -> Any:
    """Run ``python -m module`` with the task as JSON; what it prints last is the answer.

    Args:
        quick: fork this process instead, which has the libraries already: seconds less, and memory means nothing.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    if quick:
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            return pool.submit(import_module(module)._work, task).result(timeout)
    command = [sys.executable, "-m", module, json.dumps(task)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_of(call: Callable[[], object]) -> tuple[int, object]:
    """Bytes by which the resident memory rises above what it is now, at the highest point of a call, and its result.

    ``ru_maxrss`` only ever rises, and a child inherits its parent's. So the kernel is asked to forget the peak
    first; where it cannot, the rise of ``ru_maxrss`` is given, which is too small if there was a higher peak before.
    """
    settle()
    try:
        CLEAR.write_text("5")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = call()
        return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), result
    before = resident("VmRSS")
    result = call()
    return resident("VmHWM") - before, result


def resident(key: str = "VmRSS") -> int:
    """Resident bytes of this process now (``VmRSS``) or at their peak (``VmHWM``)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def settle() -> None:
    """Hand freed memory back: what the process kept of it would be used again without a rise."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # Not glibc.
        return
