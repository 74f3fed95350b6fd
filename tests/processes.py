"""Commands that are started in processes of their own, and everybody who belongs to them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psutil

FADING = 15.0
"""Seconds that the kernel and Ray may take to clear away what was killed."""
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
BUSY = bool(os.environ.get("CI") or os.environ.get("PYTEST_XDIST_WORKER"))
"""Whether other work is likely beside a test: on shared machines, and in one of several workers."""
_MARK = "LADDER_TEST_RUN"
_marks: dict[int, str] = {}


def launch(command: Sequence[str], environment: Mapping[str, str] | None = None, **named: Any) -> subprocess.Popen[Any]:
    """Start a command in a session and a process group of its own, which it leads."""
    mark = uuid4().hex
    # Ray's workers write their titles over their environment, where nobody could read the mark, unless they are told.
    own = {"RAY_ADDRESS": "", "SPT_NOENV": "1", _MARK: mark, **(environment or {})}
    process = subprocess.Popen(command, env=os.environ | own, start_new_session=True, **named)
    _marks[process.pid] = mark
    return process


def everybody(leader: int) -> list[psutil.Process]:
    """The living processes of a launched one, itself included, whatever sessions they made and whoever adopted them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            ours = process.environ().get(_MARK) == _marks[leader] or os.getsid(process.pid) == leader
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def listening(leader: int) -> set[tuple[str, int]]:
    """Where a launched process and all that belong to it listen."""
    found = set()
    for process in everybody(leader):
        with suppress(psutil.NoSuchProcess):
            sockets = process.net_connections(kind="inet")
            found |= {(each.laddr.ip, each.laddr.port) for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def check_nobody_is_left(leader: int) -> None:
    deadline = time.monotonic() + FADING
    while left := everybody(leader):
        assert time.monotonic() < deadline, [" ".join(process.cmdline()) for process in left]
        time.sleep(0.1)
