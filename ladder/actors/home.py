"""A home that every node sees: what an actor reads and writes there before anything is loaded.

Imports little, because a process that only looks has loaded nothing else.
"""

from __future__ import annotations

import time
from pathlib import Path

ASKED = "asked"
LATE = 5.0
"""Seconds after which a file that was written elsewhere must be seen here: network file systems remember for a while
what was not there."""


def answer(actor: object, folder: Path, token: str, name: str) -> str | None:
    """Runs in an actor: read what the driver wrote, and write under a name; says what is wrong."""
    return _without(folder / ASKED, token) or _write(folder / name, token)


def unanswered(folder: Path, token: str, name: str) -> str | None:
    """Runs in the driver: what is wrong with the answer of that name."""
    return _without(folder / name, token)


def _without(path: Path, token: str) -> str | None:
    """Why a file does not hold a token."""
    deadline = time.monotonic() + LATE
    while True:
        try:
            found = path.read_text(encoding="utf-8")
        except OSError as error:
            wrong = f"{type(error).__name__}: {error.strerror}"
        else:
            if found == token:
                return None
            wrong = "another file lies there"
        if time.monotonic() > deadline:
            return wrong
        time.sleep(0.1)


def _write(path: Path, token: str) -> str | None:
    try:
        path.write_text(token, encoding="utf-8")
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return None
