"""One lock file a family and purpose, held by the kernel: a process that dies lets go of it.

``flock`` and no file that says "locked": after a SIGKILL such a file would say so for ever, and whether its process
still lives cannot be told from another machine. What stands in the file is for people, and says at most that nobody
holds it. The file itself is never removed: whoever waits has it open, and would come to hold a file without a name
beside one that a third process made anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

from ladder.errors import Busy

_PAUSE = 0.05
_LOOK = 0.3
"""Seconds that whoever wants a lock waits for those who only look whether it is held, which takes them far less."""


@contextmanager
def family_lock(home: Path, family: str, purpose: str, *, timeout: float = 0.0) -> Iterator[Path]:
    """Hold ``home/locks/<family>.<purpose>.lock``.

    The lock binds processes that share this home. It is advisory, not re-entrant, and released by process death.

    Args:
        purpose: ``evolve`` (one evolve at a time, for hours) or ``head`` (one change of HEAD at a time, for moments),
            say: two locks, so that a rollback does not wait for a training.
        timeout: seconds to wait; 0 gives up as soon as it is no mere look that is in the way.

    Raises:
        Busy: another process holds it; the message names its process id, host and since when.
    """
    with file_lock(home / "locks" / f"{family}.{purpose}.lock", f"{family} ({purpose})", timeout=timeout) as path:
        yield path


@contextmanager
def file_lock(path: Path, what: str, *, timeout: float) -> Iterator[Path]:
    """Hold one lock file; see ``family_lock``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not "w": the signature in it is another process's until the lock is ours.
    with path.open("a+", encoding="utf-8") as stream:
        _acquire(stream, what, time.monotonic() + max(timeout, _LOOK))
        try:
            _sign(stream)
            yield path
        finally:
            # In this order: once the lock is free, what stands in the file may be the next holder's signature.
            stream.truncate(0)
            fcntl.flock(stream, fcntl.LOCK_UN)


def is_held(home: Path, family: str, purpose: str) -> bool:
    """Whether some process holds this lock now. Creates nothing, and others may look at the same time.

    A holder signs, and wipes its signature off before it lets go, so only what is signed has to be tried: by a holder,
    or by one that died.
    """
    path = home / "locks" / f"{family}.{purpose}.lock"
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("r", encoding="utf-8") as stream:
        # Shared, so that two that look do not take each other for a holder.
        return not _try(stream, fcntl.LOCK_SH)


def _acquire(stream: TextIOWrapper, what: str, deadline: float) -> None:
    while not _try(stream):
        if time.monotonic() >= deadline:
            raise Busy(
                f"{what} is held by {_holder(stream)}",
                where=stream.name,
                remedy="wait for that process to end; a process that dies lets go by itself",
            )
        time.sleep(_PAUSE)


def _try(stream: TextIOWrapper, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(stream: TextIOWrapper) -> None:
    stream.truncate(0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now}, stream)
    stream.flush()


def _holder(stream: TextIOWrapper) -> str:
    """Who signed the file. Between taking and signing, a lock has a holder but no signature."""
    stream.seek(0)
    try:
        entry = json.loads(stream.read())
        return f"process {entry['pid']} on {entry['host']} since {entry['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
