"""Where a command of the registry may die, and of what: its durable steps by name, and four faults.

A durable step is a call of MLflow's client that writes. The registry writes nothing else that lasts but caches, which
prove themselves, and the files that ``log_model_artifacts`` stores.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from ladder.errors import RegistryError

PROMOTE = [
    "create_run",
    "set_registered_model_alias",
    "set_model_version_tag",
    "set_tag",
    "set_terminated",
    "update_registered_model",
]
ROLLBACK = ["create_run", "set_registered_model_alias", "set_terminated", "update_registered_model"]
APPROVE = ["create_run", "set_terminated"]
RECORD = [
    "create_run",
    "log_inputs",
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "set_tag",
    "finalize_logged_model",
    "log_outputs",
    "set_logged_model_tags",
    "create_model_version",
    "set_logged_model_tags",
    "log_batch",
    "set_terminated",
    "update_registered_model",
]
FIRST_REJECTION = [
    "create_experiment",
    *RECORD[:8],
    "create_registered_model",
    *RECORD[8:11],
    "create_experiment",
    "create_run",
    "set_terminated",
    *RECORD[11:],
]
"""A family's first child, rejected: containers for runs, versions and history are created, and the history has it."""

REPEATED_REJECTION = ["set_logged_model_tags", "log_batch"]
"""Writes what is there already."""
REFUSED = 3
"""Exit code of a process that ended with a RegistryError."""

Step = Callable[[], object]
Fault = Callable[[Step], object]
Command = Callable[[], None]
_WRITES = re.compile("create_|set_|log_|delete_|finalize_|update_|rename_|restore_|copy_|transition_")


def killed(step: Step) -> None:
    """The process dies when the step is done. Right after one step is right before the next."""
    step()
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(step: Step) -> None:
    """The step writes nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def io_error(step: Step) -> None:
    """The step is done, and its caller is told that it failed."""
    step()
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def short_write(step: Step) -> object:
    """From here on the kernel cuts every file off at 1,000 bytes: sqlite's journal and pages, and artifacts."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return step()


def killed_inside(moment: str, number: int) -> Fault:
    """The process dies at the ``number``-th (from 1) of the SQLAlchemy events ``moment`` within the step."""

    def fault(step: Step) -> object:
        reached = count(1)

        def die(*_: object) -> None:
            if next(reached) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, moment, die)
        try:
            return step()
        finally:
            event.remove(Engine, moment, die)

    return fault


FAULTS: dict[str, tuple[Fault, int]] = {
    "SIGKILL": (killed, -signal.SIGKILL),
    "ENOSPC": (disk_full, REFUSED),
    "EIO": (io_error, REFUSED),
    "short write": (short_write, REFUSED),
}
"""By name: the fault, and the exit code of a process that it ends."""


def steps_of(patch: pytest.MonkeyPatch, command: Callable[[], object]) -> list[str]:
    """Run a command and name its durable steps in order."""
    names: list[str] = []
    with patch.context() as context:
        _intercept(context, lambda name: names.append(name))
        command()
    return names


def failing_at(patch: pytest.MonkeyPatch, step: int | str, fault: Fault, command: Callable[[], object]) -> Command:
    """A command, for a process of its own, in which the step of this number (from 0) or name meets a fault."""

    def run() -> None:
        reached = count()
        _intercept(patch, lambda name: fault if step in (name, next(reached)) else None)
        try:
            command()
        except RegistryError:
            os._exit(REFUSED)

    return run


def _intercept(patch: pytest.MonkeyPatch, decide: Callable[[str], Fault | None]) -> None:
    inside = False

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            step = partial(real, *args, **kwargs)
            if inside:  # MLflow's client calls itself.
                return step()
            inside = True
            try:
                fault = decide(name)
                return fault(step) if fault else step()
            finally:
                inside = False

        return call

    for name in filter(_WRITES.match, dir(MlflowClient)):
        patch.setattr(MlflowClient, name, wrapped(name, getattr(MlflowClient, name)))
