"""A sign of life of a command that has said nothing yet, such as one that loads libraries on a busy machine."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

EVERY = 5.0
"""Seconds in which nothing is said."""
_going: list[threading.Event] = []


def begin(what: str) -> None:
    """Say on standard error every few seconds that this goes on, until somebody else tells of it."""
    end()
    over = threading.Event()
    _going.append(over)
    threading.Thread(target=_tell, args=(what, over), daemon=True).start()


def end() -> None:
    """Be quiet: an answer comes, or somebody tells what is done."""
    while _going:
        _going.pop().set()


def _tell(what: str, over: threading.Event) -> None:
    began = time.monotonic()
    with suppress(OSError, ValueError):  # Nobody reads it any more.
        while not over.wait(EVERY):
            print(f"ladder: {what}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)
