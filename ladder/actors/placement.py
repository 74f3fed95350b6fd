"""Where each actor lives: decided by what is there, pinned by ``runtime.devices``, told by the actor itself."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ladder.errors import ManifestError
from ladder.manifest import Devices, Runtime
from ladder.system.process import ProcessMemory, process_memory, reset_peak

ROLES = ("student", "teacher1", "teacher2", "evaluator")


@dataclass(frozen=True)
class Slot:
    """What one actor asks of Ray, and the device that torch sees inside it."""

    cpus: float
    gpus: float
    device: str


@dataclass(frozen=True)
class Machine:
    """What there is: CPU cores and GPUs over all nodes."""

    cpus: float
    gpus: float
    nodes: int = 1


def place(devices: Devices, machine: Machine) -> dict[str, Slot]:
    """A slot for each role. CPU cores are shared out evenly; so are GPUs among those that want one.

    Raises:
        ManifestError: a role is pinned to a GPU and there is none.
    """
    wanted = {role: getattr(devices, role) for role in ROLES}
    on_gpu = [
        role for role, device in wanted.items() if device.startswith("cuda") or (device == "auto" and machine.gpus)
    ]
    if on_gpu and not machine.gpus:
        raise ManifestError(
            f"{on_gpu[0]} is pinned to {wanted[on_gpu[0]]}, and Ray sees no GPU",
            where=f"runtime.devices.{on_gpu[0]}",
            remedy="use auto or cpu, or start Ray where the GPU is",
        )
    share = 1.0 if machine.gpus >= len(on_gpu) else round(machine.gpus / max(1, len(on_gpu)), 3)
    cpus = min(1.0, machine.cpus / len(ROLES))
    return {role: _slot(role in on_gpu, cpus, share) for role in ROLES}


def threads(runtime: Runtime, machine: Machine) -> int:
    """Torch threads of each actor: the manifest's, or all cores of its node.

    Cores are not divided up: the student has most of the work, and its teachers are ahead of it most of the time. On
    two cores a step with two teachers took 7.0 s with two threads each, and 11.0 s with one.
    """
    return runtime.threads or max(1, int(machine.cpus // machine.nodes))


def describe(slots: Mapping[str, Slot]) -> dict[str, str]:
    """Placement in words, for ``plan``."""
    return {role: f"{slot.device} ({slot.cpus:g} CPU, {slot.gpus:g} GPU)" for role, slot in slots.items()}


def _slot(on_gpu: bool, cpus: float, share: float) -> Slot:
    # Ray shows an actor only the GPUs that it was given, so the first of them is always cuda:0.
    return Slot(cpus, share if on_gpu else 0.0, "cuda:0" if on_gpu else "cpu")


class Measured:
    """An actor whose memory is measured."""

    def reset_peak(self) -> bool:
        """Count the peak of memory from here; False where only the peak since the process began can be had."""
        return reset_peak()

    def memory(self) -> ProcessMemory:
        """The peak of this process; actors that share one give the same answer."""
        return process_memory()


@dataclass(frozen=True)
class Host:
    """One actor's surroundings.

    Args:
        machine: its name.
        cores: those that its process may use.
        waits: how its OpenMP threads wait; empty where nobody said.
    """

    machine: str
    cores: int
    waits: str


def look_around(actor: object) -> Host:
    """Runs in an actor, and says where it is."""
    return Host(socket.gethostname(), _cores(), os.environ.get("OMP_WAIT_POLICY", ""))


def crowded(hosts: Iterable[Host], threads: int) -> list[str]:
    """Warnings about oversubscribed cores with so many torch threads in each of these actors, one for each machine.

    Actors that take turns on the same cores are meant to (``ladder.actors.placement.threads``), as long as their
    threads sleep while they wait, and no actor has more of them than its machine has cores.
    """
    told = []
    for host, actors in Counter(hosts).items():
        if threads > host.cores:
            told.append(
                f"{threads} threads for each actor on {host.machine}, which has {host.cores} cores: "
                f"steps take longer; set runtime.threads to {host.cores} or less"
            )
        elif actors * threads > host.cores and host.waits.upper() != "PASSIVE":
            told.append(
                f"{actors} actors with {threads} threads each on {host.machine}, which has {host.cores} cores, and "
                f"OMP_WAIT_POLICY={host.waits or '(not set)'}: threads that spin while they wait make steps many times "
                f"longer; unset it, or set runtime.threads to {max(1, host.cores // actors)}"
            )
    return told


def _cores() -> int:
    """The cores that this process may use, which a container or ``taskset`` may have made fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
