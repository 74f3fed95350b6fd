"""One Ray session and one set of actors for all manifests of a call, and the loop that streams signals to the student.

Object references go straight from teachers to student; a bounded number of steps is in flight.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import ray
import ray.util
from ray.exceptions import (
    GetTimeoutError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from ladder.actors import own_ray, settings
from ladder.actors.home import ASKED, answer, unanswered
from ladder.actors.placement import (
    NODE_ID,
    Host,
    Machine,
    Node,
    Placement,
    describe,
    is_rank,
    look_around,
    place,
    processes,
)
from ladder.actors.remote import EvaluatorActor, StudentActor, StudentGroup, TeacherActor, TeacherHandle
from ladder.data.batches import Batches, dealt
from ladder.errors import (
    CHECKPOINT_KEPT,
    LESS_MEMORY,
    ActorDied,
    LadderError,
    ManifestError,
    RunError,
    is_out_of_memory,
    out_of_memory,
    said,
)
from ladder.manifest import RAYS_OWN, Runtime
from ladder.train.spec import StepReport, combined

os.environ.update(settings.missing())


START_TIMEOUT = 180.0
"""Seconds that actors may take to start before the session says what it asked for."""
LOOK_ROUND = 2
"""Seconds between two looks at whether all nodes are there while actors start."""
SIGN_OF_LIFE = 30.0
"""Seconds in which an actor that is thought dead may prove that it lives."""


@dataclass(frozen=True)
class _Standing:
    """The group that is placed now.

    Args:
        nodes: Ray's ids of those that were alive then.
    """

    placement: Placement
    group: PlacementGroup
    nodes: frozenset[str]


class Session:
    """Actors by role, in one placement group. Ray and each actor start when they are first needed, and actors are
    reused after that, as long as the next manifest places them alike.

    Args:
        address: of a running Ray cluster; None takes ``RAY_ADDRESS``, or starts Ray on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS")
        self._owns = not ray.is_initialized()
        self._actors: dict[str, Any] = {}
        self._hosts: dict[str, Host] = {}
        self._group: StudentGroup | None = None
        self._seen: set[tuple[str, Path]] = set()
        self._standing: _Standing | None = None
        self._lost = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.dismiss()
        if self._owns and ray.is_initialized():
            ray.shutdown()

    def dismiss(self) -> None:
        """End all actors and give up their places; ``start`` makes new ones."""
        with suppress(RayError):  # A Ray that is gone has ended them.
            for actor in self._actors.values():
                ray.kill(actor)
            if self._standing is not None:
                ray.util.remove_placement_group(self._standing.group)
        self._actors.clear()
        self._hosts.clear()
        self._seen.clear()
        self._standing = None

    @cached_property
    def machine(self) -> Machine:
        """What Ray sees."""
        self._connect()
        return Machine(tuple(_nodes()))

    def placement(self, runtime: Runtime, roles: Iterable[str], cores: Collection[str] = ()) -> Placement:
        """Where each role lives. Whoever is asked for after a training has the place that was kept for it.

        Args:
            cores: as for ``place``.

        Raises:
            ManifestError: the manifest asks for what no node has.
            RunError: a node was lost, and none that could take its place came within the time that actors have to
                start.
        """
        roles, standing, deadline = tuple(roles), self._standing, time.monotonic() + START_TIMEOUT
        if standing and self._nodes_gone(standing):
            self.__dict__.pop("machine", None)
        elif standing and standing.placement.devices == runtime.devices and _kept(standing.placement, roles):
            return standing.placement
        while True:
            try:
                return place(runtime, self.machine, roles, cores)
            except ManifestError as error:
                if not self._lost:
                    raise
                if time.monotonic() > deadline:
                    raise RunError(
                        f"a node was lost, and {error.message}", where=error.where, remedy=CHECKPOINT_KEPT
                    ) from error
            time.sleep(1.0)
            self.__dict__.pop("machine", None)

    def start(self, placement: Placement, roles: Iterable[str]) -> dict[str, Any]:
        """Actors for some roles of a placement, started side by side where they do not run yet.

        Raises:
            RunError: Ray could not place them in time; the message names what was asked and what is there.
            ActorDied: a node was lost meanwhile.
        """
        roles = list(roles)
        standing = self._begin(placement, roles)
        started = {role: self._actors[role] for role in roles}
        ready = [actor.__ray_call__.remote(look_around) for actor in started.values()]
        self._await(lambda seconds: not ray.wait(ready, num_returns=len(ready), timeout=seconds)[1], standing)
        self._hosts.update(zip(roles, fetch(ready), strict=True))
        self._lost = False
        return started

    def foresee(self, placement: Placement, roles: Iterable[str]) -> None:
        """Begin to start actors that will be asked for later, and wait for none of them: an actor loads its libraries
        for seconds, on a core that others leave free. Only on one node and on its cores, where every role has its
        place in every run."""
        if not placement.spread and not any(slot.gpus for slot in placement.slots.values()):
            self._begin(placement, [role for role in roles if role in placement.slots])

    def _begin(self, placement: Placement, roles: Iterable[str]) -> _Standing:
        """Make the actors for some roles that are not there yet."""
        self._connect()
        standing = self._stand(placement)
        for role in roles:
            if role not in self._actors:
                slot = placement.slots[role]
                options = ray.remote(
                    num_cpus=slot.cpus,
                    num_gpus=slot.gpus,
                    max_restarts=0,
                    max_task_retries=0,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(standing.group, slot.bundle),
                    runtime_env={"env_vars": settings.travelling()},
                )
                self._actors[role] = options(_KINDS.get(role.partition(".")[0], TeacherActor)).remote()
        return standing

    def hosts(self, roles: Iterable[str]) -> list[Host]:
        """Where the actors for these roles live that were started."""
        return [self._hosts[role] for role in roles]

    def check_home(self, home: Path) -> None:
        """Refuse a home that a node does not see: each actor reads a file there and writes one, once. Where there are
        several nodes, somebody looks for the evaluator, too, which starts when a training is done.

        Raises:
            RunError: names the node and the path.
        """
        home, token = home.absolute(), uuid4().hex
        new = {role: self._actors[role] for role in self._hosts if (role, home) not in self._seen}
        if not new:
            return
        (home / "cache").mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="seen-", dir=home / "cache") as temporary:
            folder = Path(temporary)
            (folder / ASKED).write_text(token, encoding="utf-8")
            asked = {role: actor.__ray_call__.remote(answer, folder, token, role) for role, actor in new.items()}
            nodes = {role: self._hosts[role].node for role in new}
            node = self._evaluators_node()
            if node is not None and node not in {host.node for host in self._hosts.values()}:
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                look = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(answer)
                asked["evaluator"] = look.remote(None, folder, token, "evaluator")
                nodes["evaluator"] = node
            for role, told in zip(asked, fetch(list(asked.values())), strict=True):
                if wrong := told or unanswered(folder, token, role):
                    raise RunError(
                        f"node {self.name_of(nodes[role])}, where the {role} lives, does not see the home: {wrong}",
                        where=str(home),
                        remedy="give a --home on storage that all nodes have under the same path, or keep the run on "
                        "nodes that have it, by labels in runtime.devices",
                    )
        self._seen |= {(role, home) for role in new}

    def name_of(self, node: str) -> str:
        """The name of a node by Ray's id."""
        return next((one.name for one in self.machine.members if one.id == node), "(gone)")

    def _evaluators_node(self) -> str | None:
        """Ray's id of the node that is kept for an evaluator that has not started."""
        standing = self._standing
        slot = standing.placement.slots.get("evaluator") if standing and standing.placement.spread else None
        if standing is None or slot is None or "evaluator" in self._actors:
            return None
        nodes: dict[int, str] = ray.util.placement_group_table(standing.group)["bundles_to_node_id"]
        return nodes[slot.bundle]

    def _stand(self, placement: Placement) -> _Standing:
        """The group for a placement. Actors of another one make way: they hold its cores."""
        if self._standing is None or self._standing.placement != placement:
            self.dismiss()
            group = ray.util.placement_group(
                [bundle.asked() for bundle in placement.bundles],
                strategy="SPREAD" if placement.spread else "PACK",
                bundle_label_selector=[dict(bundle.labels) for bundle in placement.bundles],
            )
            self._standing = _Standing(placement, group, frozenset(node.id for node in _nodes()))
        # What the manifest wrote may differ, and mean the same places.
        standing = self._standing = replace(self._standing, placement=placement)
        self._await(standing.group.wait, standing)
        return standing

    def _await(self, arrived: Callable[[int], bool], standing: _Standing) -> None:
        """Wait until what was asked of Ray is there.

        Args:
            arrived: waits so many seconds for it.

        Raises:
            RunError: it did not come in time.
            ActorDied: a node was lost, so it may never come.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not arrived(LOOK_ROUND):
            if gone := self._nodes_gone(standing):
                raise ActorDied(f"{len(gone)} of {len(standing.nodes)} nodes went away", remedy=CHECKPOINT_KEPT)
            if time.monotonic() > deadline:
                raise RunError(
                    f"actors did not start within {START_TIMEOUT:g} s: {_asked_and_there(standing.placement)}",
                    remedy="free the cluster, add nodes, or ask for less in runtime.devices, runtime.student.ranks or "
                    "runtime.teachers.replicas",
                )

    def _nodes_gone(self, standing: _Standing) -> frozenset[str]:
        return standing.nodes - {node.id for node in _nodes()}

    def bury(self) -> list[str]:
        """Forget the actors that give no sign of life, so that ``start`` makes new ones; returns their roles.

        With one of the student's ranks all of them go: the others wait for it in an exchange that never comes. With a
        node everybody goes, because fewer nodes are shared out anew.
        """
        signs = {actor.__ray_ready__.remote(): role for role, actor in self._actors.items()}
        dead, pending, deadline = list[str](), list(signs), time.monotonic() + SIGN_OF_LIFE
        while pending:
            came, pending = ray.wait(pending, timeout=max(0.0, deadline - time.monotonic()))
            if not came:
                dead += [signs[sign] for sign in pending]
                break
            dead += [signs[sign] for sign in came if not _arrived(sign)]
            if any(map(is_rank, dead)):
                pending = [sign for sign in pending if not is_rank(signs[sign])]
        if any(map(is_rank, dead)):
            dead += [role for role in self._actors if is_rank(role) and role not in dead]
        for role in dead:
            ray.kill(self._actors.pop(role))
            self._hosts.pop(role, None)
        self._seen = {(role, home) for role, home in self._seen if role not in dead}
        if self._standing and self._nodes_gone(self._standing):
            self._lost = True
            dead += self._actors
            self.dismiss()
        self.__dict__.pop("machine", None)
        return dead

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

    def group(self, actors: Mapping[str, Any]) -> StudentGroup:
        """The student's ranks among these actors, which have found each other."""
        roles = processes("student", sum(map(is_rank, actors)))
        group = StudentGroup(tuple(actors[role] for role in roles))
        if len(roles) > 1 and group != self._group:
            assert self._standing is not None, "the ranks were started"
            slots = self._standing.placement.slots
            nodes = {host.node for host in self.hosts(roles)}
            fetch(group.join([slots[role].device for role in roles], one_node=len(nodes) == 1), START_TIMEOUT)
        self._group = group
        return group


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
        raise ActorDied(f"an actor did not answer within {timeout:g} s", remedy=CHECKPOINT_KEPT) from error
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, LadderError):
            raise cause from None
        told = _in_words(cause)
        if told is None:
            raise
        raise told from error


GRACE = 5.0
"""Seconds in which the other ranks may say what they know, after one of them failed."""


def hear(group: StudentGroup, references: Sequence[Any], timeout: float | None = None) -> list[Any]:
    """The answers of all ranks of a group.

    The first failure ends the waiting. Where it leaves ranks that wait for the one that failed, the group ends: they
    would never answer.

    Args:
        timeout: seconds.

    Raises:
        LadderError: as ``fetch``, of the rank that knows best: the one that failed, and not one that lost it.
    """
    waiting, deadline = list(references), None if timeout is None else time.monotonic() + timeout
    while waiting:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        if not ready or _failure(ready[0]) is not None:
            break
    else:
        return [fetch(one) for one in references]
    answered, silent = ray.wait(list(references), num_returns=len(references), timeout=GRACE if ready else 0.0)
    if silent and len(references) > 1:
        group.end()
    failures = [failure for one in answered if (failure := _failure(one)) is not None]
    if not failures:
        raise ActorDied(f"an actor did not answer within {timeout:g} s", remedy=CHECKPOINT_KEPT)
    raise min(failures, key=lambda failure: (isinstance(failure, ActorDied), not isinstance(failure, LadderError)))


def _failure(reference: Any) -> Exception | None:
    """What went wrong behind a reference that is ready; None where nothing did."""
    try:
        fetch(reference, timeout=0.0)
    except Exception as error:
        return error
    return None


def _in_words(cause: Exception) -> LadderError | None:
    """An actor's failure as an error of ladder; None for a mistake in our own code."""
    if is_out_of_memory(cause) or isinstance(cause, ObjectStoreFullError):
        return out_of_memory(cause)
    # Whoever else needs memory on that node may be done the next time, or the actor may find another node.
    if isinstance(cause, OutOfMemoryError):
        return ActorDied(f"an actor's node ran out of memory: {said(cause)}", remedy=LESS_MEMORY)
    # OSError comes last, because some of Ray's errors are OSErrors, too.
    if isinstance(cause, RayError) and not isinstance(cause, OutOfDiskError):
        return ActorDied(f"an actor died: {said(cause)}", remedy=CHECKPOINT_KEPT)
    if isinstance(cause, OutOfDiskError | OSError):
        return RunError(f"an actor could not go on: {said(cause)}", remedy=CHECKPOINT_KEPT)
    return None


def _nodes() -> list[Node]:
    """The nodes that live; Ray goes on listing those that it lost."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = Counter(node["NodeName"] for node in alive)
    return [
        Node(
            node["NodeName"] if names[node["NodeName"]] == 1 else f"{node['NodeName']}-{node['NodeID'][:6]}",
            node["Resources"].get("CPU", 0.0),
            int(node["Resources"].get("GPU", 0)),
            {name: value for name, value in node["Labels"].items() if name != NODE_ID},
            {name: amount for name, amount in node["Resources"].items() if _is_own(name)},
            int(node["Resources"].get("object_store_memory", 0)),
            node["NodeID"],
        )
        for node in alive
    ]


def _is_own(resource: str) -> bool:
    """Whether somebody gave a node this resource when it was started."""
    return resource not in RAYS_OWN and not resource.startswith("node:")


def _kept(placement: Placement, roles: Sequence[str]) -> bool:
    """Whether these roles come after the training and have their places. The student's threads depend on the ranks that
    its group was made for, so a training never takes another one's places."""
    return placement.slots.keys() >= set(roles) and not any(map(is_rank, roles))


def _asked_and_there(placement: Placement) -> str:
    """What was asked for, role by role, and what there is, node by node."""
    nodes, free, asked = _nodes(), own_ray.free_by_node(), list[str]()
    names = {node.id: node.name for node in nodes}
    for role, where in describe(placement.slots).items():
        bundle = placement.bundles[placement.slots[role].bundle]
        own = [
            names.get(value, "a node that is gone") if name == NODE_ID else f"{name}={value}"
            for name, value in bundle.labels.items()
        ]
        own += [f"{name}: {amount:g}" for name, amount in bundle.resources.items()]
        asked.append(f"{role} on {where}{' of ' if own else ''}{', '.join(own)}")
    there = [
        f"{node}: free are {free.get(node.id, {}).get('CPU', 0.0):g} CPU, {free.get(node.id, {}).get('GPU', 0.0):g} GPU"
        for node in nodes
    ]
    return f"asked for {', '.join(asked)}; there are {', '.join(there)}"


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


_KINDS = {"student": StudentActor, "evaluator": EvaluatorActor}
"""Of the roles that are no teachers."""


def stream(
    group: StudentGroup,
    teachers: Mapping[int, TeacherHandle],
    batches: Batches,
    steps: range,
    runtime: Runtime,
    stop: Callable[[], bool],
    *,
    put: Callable[[Any], Any] = ray.put,
    get: Callable[[Sequence[Any], float], Sequence[StepReport]] | None = None,
) -> Iterator[StepReport]:
    """Train over ``steps``, yielding a report for each, in order.

    Args:
        teachers: those that speak, by number.
        runtime: how many steps teachers may run ahead of the student, and how long a step may take.
        stop: asked before each step but the first is sent; steps already in flight are still done.
        put, get: where references come from, and how those of all ranks are waited for (with seconds of patience);
            Ray's where they are left out.

    Raises:
        ActorDied: an actor died, or a step took too long.
    """
    patience, get = 60 * runtime.hung_after_minutes, get or partial(hear, group)
    pending: deque[Any] = deque()
    for step in steps:
        if step != steps.start and stop():
            break
        shares = [put(micro) for micro in dealt(batches(step), len(group.ranks))]
        said = [{number: teacher.signal(share) for number, teacher in teachers.items()} for share in shares]
        pending.append(group.step(step, shares, said))
        if len(pending) > runtime.in_flight:
            yield combined(get(pending.popleft(), patience))
    while pending:
        yield combined(get(pending.popleft(), patience))
