"""How much memory this process had at most, since somebody asked it to begin anew.

Linux keeps the peak of the resident set (VmHWM) and takes it back to the present size on request (``proc(5)``,
``clear_refs``). ``getrusage`` never comes down, so in an actor that serves several manifests it would show the largest
of them all; it is what is left where there is no ``/proc``, or where the request is refused.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

FIRST_USE = 50 * 2**20
"""Bytes that an actor takes beyond its imports: connections of Ray, the model's own code, buffers of first products."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class ProcessMemory:
    """What one process took; resident pages that processes share, such as torch's code, count in each.

    Args:
        host: name of its machine.
        pid: its number there.
        peak_bytes: largest resident set.
        gpu_bytes: most that torch had allocated on the GPU; 0 without one.
    """

    host: str
    pid: int
    peak_bytes: int
    gpu_bytes: int = 0

    @property
    def identity(self) -> tuple[str, int]:
        return self.host, self.pid


def reset_peak() -> bool:
    """Begin anew, from what is resident now; False where the system does not allow it."""
    _give_back()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def bare_bytes() -> int:
    """Bytes of an actor that has loaded no model, taken from this process, which should not have either."""
    return resident_bytes() + FIRST_USE


def process_memory() -> ProcessMemory:
    """The peak since the last reset, or since the process began where there is no resetting."""
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return ProcessMemory(socket.gethostname(), os.getpid(), _status("VmHWM") or _largest(), gpu)


def resident_bytes() -> int:
    """What is resident now."""
    return _status("VmRSS") or _largest()


def _status(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == f"{name}:")


def _largest() -> int:
    """``getrusage`` counts KiB, but bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _give_back() -> None:
    """Let glibc and torch return what an earlier manifest, or a step that found no memory, freed; other libraries do so
    on their own, or never."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
