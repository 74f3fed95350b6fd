"""One Ray session and one set of actors for all manifests of a call, and the loop that streams signals to the student.

Object references go straight from teachers to student; a bounded number of steps is in flight.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)

from ladder.actors import own_ray, settings
from ladder.actors.placement import Host, Machine, Slot, describe, look_around, place
from ladder.actors.remote import EvaluatorActor, StudentActor, StudentGroup, TeacherActor, TeacherHandle
from ladder.data.batches import Batches, dealt
from ladder.errors import LESS_MEMORY, ActorDied, LadderError, RunError, is_out_of_memory, out_of_memory, said
from ladder.manifest import Devices, Runtime
from ladder.train.spec import StepReport

os.environ.update(settings.missing())


START_TIMEOUT = 180.0
"""Seconds that actors may take to start before the session says what it asked for."""
SIGN_OF_LIFE = 30.0
"""Seconds in which an actor that is thought dead may prove that it lives."""


class Session:
    """Actors by role. Ray and each actor start when they are first needed, and actors are reused after that.

    Args:
        address: of a running Ray cluster; None takes ``RAY_ADDRESS``, or starts Ray on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS")
        self._owns = not ray.is_initialized()
        self._actors: dict[tuple[str, Slot], Any] = {}
        self._hosts: dict[tuple[str, Slot], Host] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def dismiss(self) -> None:
        """End all actors; ``start`` makes new ones."""
        for actor in self._actors.values():
            with suppress(RayError):  # A Ray that is gone has ended them.
                ray.kill(actor)
        self._actors.clear()

    @cached_property
    def machine(self) -> Machine:
        """What Ray sees."""
        self._connect()
        resources = ray.cluster_resources()
        return Machine(resources.get("CPU", 0.0), resources.get("GPU", 0.0), _living_nodes())

    def slots(self, devices: Devices) -> dict[str, Slot]:
        """Where each role lives."""
        return place(devices, self.machine)

    def start(self, roles: Mapping[str, Slot]) -> dict[str, Any]:
        """Actors for these roles, started side by side where they do not run yet.

        Raises:
            RunError: Ray could not place them in time; the message names what was asked and what is there.
        """
        self._connect()
        self._make_way(roles)
        for role, slot in roles.items():
            if (role, slot) not in self._actors:
                options = ray.remote(
                    num_cpus=slot.cpus,
                    num_gpus=slot.gpus,
                    max_restarts=0,
                    max_task_retries=0,
                    runtime_env={"env_vars": settings.travelling()},
                )
                self._actors[role, slot] = options(_KINDS[role.partition(".")[0]]).remote()
        started = {role: self._actors[role, slot] for role, slot in roles.items()}
        ready = [actor.__ray_call__.remote(look_around) for actor in started.values()]
        _, missing = ray.wait(ready, num_returns=len(ready), timeout=START_TIMEOUT)
        if missing:
            raise RunError(
                f"actors did not start within {START_TIMEOUT:g} s: asked for {describe(roles)}, "
                f"free are {ray.available_resources()}",
                remedy="free the cluster, add nodes, or pin fewer devices in runtime.devices",
            )
        self._hosts.update(zip(roles.items(), fetch(ready), strict=True))
        return started

    def hosts(self, roles: Mapping[str, Slot]) -> list[Host]:
        """Where the actors for these roles live that were started."""
        return [self._hosts[key] for key in roles.items()]

    def _make_way(self, roles: Mapping[str, Slot]) -> None:
        """End actors whose role lives elsewhere now, as it does on a machine of fewer nodes: they hold its cores."""
        for role, slot in [key for key in self._actors if key[0] in roles and key[1] != roles[key[0]]]:
            ray.kill(self._actors.pop((role, slot)))

    def bury(self) -> list[str]:
        """Forget the actors that give no sign of life, so that ``start`` makes new ones; returns their roles."""
        signs = {key: actor.__ray_ready__.remote() for key, actor in self._actors.items()}
        if signs:
            ray.wait(list(signs.values()), num_returns=len(signs), timeout=SIGN_OF_LIFE)
        dead = [key for key, sign in signs.items() if not _arrived(sign)]
        for key in dead:
            ray.kill(self._actors.pop(key))
        # A node may have gone with them.
        self.__dict__.pop("machine", None)
        return [role for role, _ in dead]

    def _connect(self) -> None:
        """Join the cluster, or start Ray on loopback without a dashboard, unless this process runs Ray already.

        Raises:
            RunError: the cluster cannot be joined.
        """
        if ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": "error"}
        with ExitStack() as around:
            around.enter_context(own_ray.sigterm_kept())
            if self.address:
                if own_ray.is_on_loopback_alone(self.address):
                    around.enter_context(own_ray.on_loopback())
                _join(self.address, quiet)
            else:
                around.enter_context(own_ray.on_loopback())
                around.enter_context(own_ray.detached())
                # "local", because without an address Ray would join any cluster that was started on this machine.
                ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)

    def group(self, actor: Any) -> StudentGroup:
        """The student's ranks."""
        return StudentGroup((actor,))


def fetch(references: Any, timeout: float | None = None) -> Any:
    """``ray.get`` that hands on the error that was raised inside the actor.

    Args:
        timeout: seconds.

    Raises:
        LadderError: as raised there; OutOfMemory or a RunError for what the operating system refused there.
        ActorDied: the actor that should answer, or one that it waits for, died or did not answer in time.
    """
    try:
        return ray.get(references, timeout=timeout)
    except GetTimeoutError as error:
        raise ActorDied(f"an actor did not answer within {timeout:g} s", remedy=_REMEDY) from error
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, LadderError):
            raise cause from None
        told = _in_words(cause)
        if told is None:
            raise
        raise told from error


def _in_words(cause: Exception) -> LadderError | None:
    """An actor's failure as an error of ladder; None for a mistake in our own code."""
    if is_out_of_memory(cause) or isinstance(cause, ObjectStoreFullError):
        return out_of_memory(cause)
    # Whoever else needs memory on that node may be done the next time, or the actor may find another node.
    if isinstance(cause, OutOfMemoryError):
        return ActorDied(f"an actor's node ran out of memory: {said(cause)}", remedy=LESS_MEMORY)
    # OSError comes last, because some of Ray's errors are OSErrors, too.
    if isinstance(cause, RayError) and not isinstance(cause, OutOfDiskError):
        return ActorDied(f"an actor died: {said(cause)}", remedy=_REMEDY)
    if isinstance(cause, OutOfDiskError | OSError):
        return RunError(f"an actor could not go on: {said(cause)}", remedy=_REMEDY)
    return None


def _living_nodes() -> int:
    """Ray goes on listing the nodes that it lost."""
    return sum(node["Alive"] for node in ray.nodes())


def _join(address: str, quiet: Mapping[str, Any]) -> None:
    """Connect to a running Ray.

    Raises:
        RunError: there is none, or it does not let us in.
    """
    try:
        ray.init(address=address, **quiet)
    except (ValueError, ConnectionError) as error:
        remedy = "give the address of a running head, such as 10.0.0.1:6379, and its token as RAY_AUTH_TOKEN"
        raise RunError(f"no Ray can be joined: {said(error)}", where=address, remedy=remedy) from error


def _arrived(sign: Any) -> bool:
    try:
        ray.get(sign, timeout=0)
    except RayError:
        return False
    return True


_REMEDY = "the last checkpoint is kept; run the same command again to go on"
_KINDS = {"student": StudentActor, "teacher1": TeacherActor, "teacher2": TeacherActor, "evaluator": EvaluatorActor}


def stream(
    group: StudentGroup,
    teachers: Mapping[int, TeacherHandle],
    batches: Batches,
    steps: range,
    runtime: Runtime,
    stop: Callable[[], bool],
) -> Iterator[StepReport]:
    """Train over ``steps``, yielding a report for each, in order.

    Args:
        teachers: those that speak, by number.
        runtime: how many steps teachers may run ahead of the student, and how long a step may take.
        stop: asked before each step but the first is sent; steps already in flight are still done.

    Raises:
        ActorDied: an actor died, or a step took too long.
    """
    patience = 60 * runtime.hung_after_minutes
    pending: deque[Any] = deque()
    for step in steps:
        if step != steps.start and stop():
            break
        shares = [ray.put(micro) for micro in dealt(batches(step), len(group.ranks))]
        said = [{number: teacher.signal(share) for number, teacher in teachers.items()} for share in shares]
        pending.append(group.step(step, shares, said))
        if len(pending) > runtime.in_flight:
            yield fetch(pending.popleft(), patience)
    while pending:
        yield fetch(pending.popleft(), patience)
