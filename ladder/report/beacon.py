"""What a run tells of itself while it goes on: one small file in its folder, for whoever watches from another process
or another machine that sees the home (``ladder watch``)."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ladder.report.console import Console
from ladder.report.live import Meter, Task

LIVE = "live.json"
"""In a run's folder."""
EVERY = 1.0
"""Seconds between two writes. It is written also where nothing moved: a file that is old is one of a run that ended."""


@contextmanager
def shining(file: Path, console: Console) -> Iterator[None]:
    """Write every second what a console knows of the run, in a thread, so that no step waits for it.

    The file is no part of the run: where it cannot be written, the run goes on.
    """
    over, began = threading.Event(), time.time()
    training: list[Meter] = []

    def write(ended: bool = False) -> None:
        going = list(console.going)
        training[:] = [one for one in going if isinstance(one, Meter)] or training
        with suppress(OSError, RuntimeError, ValueError):
            _replace(file, document(going, training, console, began) | {"ended": ended})

    def shine() -> None:
        write()
        while not over.wait(EVERY):
            write()

    thread = threading.Thread(target=shine, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        write(ended=True)


def document(going: list[Task | Meter], training: list[Meter], console: Console, began: float) -> dict[str, Any]:
    """What is known now, as plain data for strict JSON. Times are seconds of the epoch.

    Args:
        going: what is done now, the innermost last.
        training: the training that goes on, or the last one that did; at most one.
    """
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "began": began,
        "time": time.time(),
        "doing": going[-1].line() if going else "",
        "training": training[-1].to_dict() if training else None,
        "gates": [
            {"name": one.name, "state": one.verdict if one.applicable else "-", "said": one.detail}
            for one in console.decided
        ],
    }


def _replace(file: Path, content: dict[str, Any]) -> None:
    """Whole or as it was. It need not outlive a crash of the machine, so nothing waits for the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
