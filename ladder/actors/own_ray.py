"""Ray on this machine: on loopback alone, and, where ladder starts it, unmoved by what stops the command.

Whoever stops a command tells its process group (``timeout``, a terminal) or all of its control group (systemd, Slurm).
Ray's processes would end before the step that is under way, and with them everything since the last checkpoint. So they
get sessions of their own, in which no terminal and no process group reaches them, and SIGTERM waits in them for ever:
a signal mask is inherited by whatever they start. They end by SIGKILL, when the command tells them or ends itself: the
kernel ends Ray's own processes with the command, and those that these start are put on a leash of the same kind.

This is the one module that reaches into ``ray._private``, for what no public switch of Ray does: which class starts
its processes (``services.ConsolePopen``), whether the kernel ends them with their parent
(``utils.detect_fate_sharing_support_linux``), that it takes SIGTERM over (``utils.set_sigterm_handler``), the switch
that keeps it on loopback, which it has read before this process knows whom it will join
(``ray_constants.ENABLE_RAY_CLUSTER``), what is free on each node (``state.available_resources_per_node``), where its
logs lie (``worker.global_worker``), and how large an object store it makes (``utils.resolve_object_store_memory``,
``utils.estimate_available_memory``).
``tests/actors/test_own_ray.py`` names the version of Ray that this was tried with, and what to look at in another.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.util
from ray._private import ray_constants, services, state, worker
from ray._private import utils as ray_utils

from ladder.errors import RunError

_STARTS = ("--python_worker_command=", "--dashboard_agent_command=", "--runtime_env_agent_command=")
"""The raylet's arguments that say what it starts."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_LEASH = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py"))]


class Detached(services.ConsolePopen):
    """One of Ray's processes, which the command's signals do not reach."""

    def __init__(self, command: Sequence[str], **named: Any) -> None:
        # Blocked here already, because a signal may come between the fork and the child's first line.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().__init__(list(map(_leashed, command)), start_new_session=True, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """Ray waits a second for each process that it has told to end, and this one does not hear it."""
        self.kill()


def _leashed(argument: str) -> str:
    """Its agents would outlive a raylet that was killed by a minute, and a busy worker by a quarter of one."""
    name = next((name for name in _STARTS if argument.startswith(name)), None)
    return argument if name is None else f"{name}{subprocess.list2cmdline(_LEASH)} {argument.removeprefix(name)}"


@contextmanager
def on_loopback() -> Iterator[None]:
    """Let the Ray that starts or is joined inside live on loopback alone.

    Told to take 127.0.0.1, Ray looks up another address of the machine, and listens on every interface, unless its own
    switch says that there is no cluster. Its processes read the switch from the environment; this one read it when Ray
    was imported. A switch that the user has set stays.
    """
    switch, known = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    if switch in os.environ:
        yield
        return
    os.environ[switch], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[switch]
        ray_constants.ENABLE_RAY_CLUSTER = known


def is_on_loopback_alone(address: str) -> bool:
    """Whether the head at this address, such as ``127.0.0.1:6379``, does not answer at the machine's other address.

    Raises:
        RunError: nobody answers at all, which Ray would find out after minutes.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return False  # Ray knows more kinds of addresses.
    if not _answers(host.strip("[]"), int(port)):
        raise RunError("no Ray head answers there", where=address, remedy="start one, or wait until it has started")
    return host.strip("[]") in _LOOPBACK and not _answers(ray.util.get_node_ip_address(), int(port))


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True


@contextmanager
def detached() -> Iterator[None]:
    """Let the Ray that starts inside have sessions of its own, where the kernel ends its processes with this one.

    Elsewhere Ray ends them by their process group, so they must stay in it.
    """
    if not ray_utils.detect_fate_sharing_support_linux():
        yield
        return
    known, services.ConsolePopen = services.ConsolePopen, Detached
    try:
        yield
    finally:
        services.ConsolePopen = known


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM. Ray's leaves without a word, from the moment that its start begins."""
    taken, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = taken


def free_by_node() -> dict[str, dict[str, float]]:
    """What nobody uses now of each node's resources, by Ray's id of the node."""
    return dict(state.available_resources_per_node())


def worker_logs() -> str | None:
    """The folder where Ray keeps what its processes on this machine wrote; None where no Ray runs here."""
    node = worker.global_worker.node if ray.is_initialized() else None
    return str(node.get_logs_dir_path()) if node else None


def store_of_new_ray() -> int:
    """Bytes that the object store of a Ray has that is started on this machine now."""
    return int(ray_utils.resolve_object_store_memory(ray_utils.estimate_available_memory()))
