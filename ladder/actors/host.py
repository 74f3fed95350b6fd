"""Where an actor came to live, told by itself."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


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
    """What is wrong with so many torch threads in each of these actors, a sentence for each machine.

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
