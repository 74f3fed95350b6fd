"""What there is and who needs how much of it: nodes, and a place for every role of a run.

A run is placed as one group, all of it or nothing. Who shares a card is decided here: the roles of one card are one
bundle, so that Ray has no fractions to fit together, and no card is shared by more roles than there must be.
"""

from __future__ import annotations

import math
import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ladder.errors import ManifestError
from ladder.manifest import ROLES, Devices, Runtime, Where, device_field
from ladder.system.process import ProcessMemory, process_memory, reset_peak

NODE_ID = "ray.io/node-id"
"""The label by which Ray knows a node."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Args:
        name: for people.
        cpus: cores that Ray hands out.
        gpus: whole cards.
        labels, resources: what it was started with beyond Ray's own.
        store_bytes: that Ray keeps there for what actors send each other; 0 where that is not known.
        id: Ray's; empty where no Ray was asked.
    """

    name: str
    cpus: float
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    store_bytes: int = 0
    id: str = ""

    def __str__(self) -> str:
        own = [f"{name}={value}" for name, value in self.labels.items()]
        own += [f"{name}: {amount:g}" for name, amount in self.resources.items()]
        return f"{self.name} ({', '.join([f'{self.cpus:g} CPU', f'{self.gpus} GPU', *own])})"


@dataclass(frozen=True)
class Machine:
    """What there is: the nodes that are alive."""

    members: tuple[Node, ...]

    @classmethod
    def alone(cls, cpus: float, gpus: int = 0, store_bytes: int = 0) -> Machine:
        """One node."""
        return cls((Node("here", cpus, gpus, store_bytes=store_bytes),))

    @property
    def cpus(self) -> float:
        """Over all nodes."""
        return sum(node.cpus for node in self.members)

    @property
    def gpus(self) -> int:
        """Over all nodes."""
        return sum(node.gpus for node in self.members)

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.members)


@dataclass(frozen=True)
class Bundle:
    """What is reserved together on one node.

    Args:
        labels: that the node must have.
        resources: beyond cores and cards.
    """

    cpus: float
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    def asked(self) -> dict[str, float]:
        """In Ray's words."""
        return {"CPU": self.cpus, **({"GPU": float(self.gpus)} if self.gpus else {}), **self.resources}


@dataclass(frozen=True)
class Slot:
    """What one actor takes of its bundle, and the device that torch sees inside it."""

    cpus: float
    gpus: float
    device: str
    bundle: int = 0


@dataclass(frozen=True)
class Placement:
    """One group of bundles, and the slot of each role in one of them.

    Args:
        spread: whether bundles go to different nodes as far as there are any.
        beside: most ranks of the student on one node.
        devices: what the manifest asked for; two that come out alike are one.
    """

    bundles: tuple[Bundle, ...]
    slots: Mapping[str, Slot]
    spread: bool = False
    beside: int = 1
    devices: Devices = field(default=Devices(), compare=False)


def is_rank(role: str) -> bool:
    """Whether a role is one of the student's processes: ``student``, ``student.1``, ``student.2``."""
    return role.partition(".")[0] == "student"


def processes(role: str, count: int) -> list[str]:
    """The roles of so many processes: ``teacher1``, ``teacher1.1``, ``teacher1.2``."""
    return [role, *(f"{role}.{number}" for number in range(1, count))]


def ranks_of(runtime: Runtime, machine: Machine, others: Iterable[str], most: int) -> int:
    """How many processes train the student: as many as the manifest says, or one for each GPU that is left.

    Args:
        others: the roles beside it.
        most: that have work to share: rows of a step, divided by its micro-batches.
    """
    asked, where = runtime.student.ranks, runtime.devices.of("student")
    if asked != "auto":
        return asked
    if ":" in where.device or not _wants_card(where, machine):
        return 1
    cards = sum(node.gpus for node in machine.members if _may_host(node, where))
    taken = sum(_wants_card(runtime.devices.of(role), machine) for role in others)
    return max(1, min(cards - taken, most))


def asks_for_nodes(runtime: Runtime) -> bool:
    """Whether a manifest asks for what a machine may not have."""
    return any(runtime.devices.of(role) not in _PLAIN for role in (*ROLES, "others"))


def place(runtime: Runtime, machine: Machine, roles: Iterable[str] = ROLES, cores: Collection[str] = ()) -> Placement:
    """A slot for each role. CPU cores are shared out evenly.

    Args:
        cores: those of the roles, without the number of a process, that compute on a processor whatever is asked.

    Where there is no GPU and nobody asks for more than a processor, every role has a place, whether the run needs it
    or not: so the next manifest finds the actors of the last one.

    Raises:
        ManifestError: a role asks for what no node has, or the student has more ranks than there are GPUs.
    """
    plain = not machine.gpus and not asks_for_nodes(runtime)
    # In one order, so that the same roles come out as the same placement.
    wanted = sorted({*roles, *(ROLES if plain else ())}, key=_order)
    asked = {role: runtime.devices.of(role) for role in wanted}
    asked |= {
        role: where.model_copy(update={"device": "cpu"})
        for role, where in asked.items()
        if role.partition(".")[0] in cores
    }
    for role, where in asked.items():
        if not any(_may_host(node, where) for node in machine.members):
            raise _nowhere(role, where, machine)
    rooms = [_Room(node, [[] for _ in range(node.gpus)], dict(node.resources)) for node in machine.members]
    on_cards = {role: where for role, where in asked.items() if _wants_card(where, machine)}
    _seat_on_cards(on_cards, rooms)
    _seat_on_cores({role: where for role, where in asked.items() if role not in on_cards}, rooms)
    cpus = _rounded(min([1.0, *(room.node.cpus / len(room.roles) for room in rooms if room.roles)]))
    bundles, slots, nodes = list[Bundle](), dict[str, Slot](), list[Node]()
    for room in rooms:
        for cards, held in room.bundles():
            slots |= {role: Slot(cpus, gpus, device, len(bundles)) for role, (gpus, device) in held.items()}
            bundles.append(_bundle(cpus, cards, [asked[role] for role in held]))
            nodes.append(room.node)
    if machine.nodes > 1 and (any(room.fixed for room in rooms) or not _finds_room(bundles, machine)):
        bundles = [replace(bundle, labels={NODE_ID: node.id}) for bundle, node in zip(bundles, nodes, strict=True)]
    beside = max(1, *(sum(map(is_rank, room.roles)) for room in rooms))
    return Placement(
        tuple(bundles), {role: slots[role] for role in asked}, machine.nodes > 1, beside, devices=runtime.devices
    )


_PLAIN = (Where(), Where(device="cpu"))


def _order(role: str) -> tuple[float, int, int]:
    """The student first, then teachers by number, then the evaluator; of each its processes."""
    kind, _, number = role.partition(".")
    if kind in ROLES:
        return ROLES.index(kind), 0, int(number or 0)
    return ROLES.index("evaluator") - 0.5, int(kind.removeprefix("teacher")), int(number or 0)


@dataclass
class _Room:
    """A node while roles are seated.

    Args:
        cards: who has each card.
        left: of its own resources.
        cores: who needs no card.
        numbered: a role asks for one of the cards by its number.
    """

    node: Node
    cards: list[list[str]]
    left: dict[str, float]
    cores: list[str] = field(default_factory=list)
    numbered: bool = False

    @property
    def roles(self) -> list[str]:
        return [*(role for card in self.cards for role in card), *self.cores]

    @property
    def ranks(self) -> list[list[str]]:
        """The cards of the student's ranks."""
        return [card for card in self.cards if any(map(is_rank, card))]

    @property
    def fixed(self) -> bool:
        """Whether its bundles would mean something else on another node: cards by number, or ranks that would part."""
        return self.numbered or (len(self.ranks) > 1 and any(len(card) > 1 for card in self.ranks))

    def suits(self, where: Where, count: int = 1) -> bool:
        """Whether so many processes find a place here."""
        enough = all(self.left.get(name, 0.0) >= count * amount for name, amount in where.resources.items())
        return enough and _may_host(self.node, where)

    def seat(self, role: str, where: Where, card: int | None = None) -> None:
        (self.cores if card is None else self.cards[card]).append(role)
        for name, amount in where.resources.items():
            self.left[name] -= amount

    def bundles(self) -> Iterator[tuple[int, dict[str, tuple[float, str]]]]:
        """Each bundle: its cards, and of each role the share of a card and the device."""
        if self.numbered:
            # Ray chooses the card of whoever asks it for one. These ask for none and see all, and nobody else has any.
            yield len(self.cards), {role: (0.0, f"cuda:{i}") for i, card in enumerate(self.cards) for role in card}
        else:
            whole = [] if self.fixed else [card[0] for card in self.ranks if len(card) == 1]
            if whole:
                yield len(whole), dict.fromkeys(whole, (1.0, "cuda:0"))
            for card in self.cards:
                if card and card[0] not in whole:
                    # Ray shows an actor only the card that it was given, so that is always cuda:0.
                    yield 1, dict.fromkeys(card, (_rounded(1 / len(card)), "cuda:0"))
        together = [role for role in self.cores if is_rank(role)]
        for roles in ([together] if together else []) + [[role] for role in self.cores if role not in together]:
            yield 0, dict.fromkeys(roles, (0.0, "cpu"))


def _seat_on_cards(asked: Mapping[str, Where], rooms: Sequence[_Room]) -> None:
    """No card has two ranks. Where there are fewer cards than roles, the evaluator, which has nothing to do while the
    student trains, shares a card with it, and teachers share those that fewest have."""
    crowded = len(asked) > sum(len(room.cards) for room in rooms)
    ranks = [role for role in asked if is_rank(role)]
    numbered = [role for role, where in asked.items() if ":" in where.device]
    if len(ranks) > 1 and "student" in numbered:
        raise ManifestError(
            f"found {asked['student'].device} for {len(ranks)} ranks, which need a GPU each",
            where="runtime.devices.student",
            remedy="write cuda, or one rank",
        )
    for role in numbered:
        fitting = [room for room in rooms if room.suits(asked[role])]
        if not fitting:
            raise _taken(role, asked[role], rooms)
        room = min(fitting, key=lambda room: (not room.numbered, len(room.cards)))
        room.numbered = True
        room.seat(role, asked[role], _index(asked[role]))
    ranks = [role for role in ranks if role not in numbered]
    if ranks:
        _seat_ranks(ranks, asked["student"], rooms)
    others = [role for role in asked if role not in (*numbered, *ranks)]
    for role in sorted(others, key=lambda role: crowded and role != "evaluator"):
        places = [(room, card) for room in rooms if room.suits(asked[role]) for card in range(len(room.cards))]
        if not places:
            raise _taken(role, asked[role], rooms)
        with_student = [place for place in places if "student" in place[0].cards[place[1]]]
        if crowded and role == "evaluator" and with_student:
            places = with_student
        room, card = min(places, key=lambda place: _load(*place))
        room.seat(role, asked[role], card)


def _load(room: _Room, card: int) -> tuple[float, ...]:
    """How little a card suits one more role; a node whose cards are taken by number is taken whole."""
    on_it, ranks_here = room.cards[card], any(map(is_rank, room.roles))
    working = sum(role != "evaluator" for role in on_it)
    return len(on_it), not room.numbered, any(map(is_rank, on_it)), working, ranks_here, len(room.roles)


def _seat_ranks(ranks: Sequence[str], where: Where, rooms: Sequence[_Room]) -> None:
    """Ranks on cards that nobody has yet: on one node if one has as many, else on as few as possible. A single one
    shares a card where all are taken.

    Raises:
        ManifestError: there are fewer cards than ranks.
    """
    free = [(room, [card for card, roles in enumerate(room.cards) if not roles]) for room in rooms if room.suits(where)]
    there = sum(len(cards) for _, cards in free)
    if there < len(ranks) > 1:
        raise ManifestError(
            f"found {len(ranks)} ranks, which need a GPU each, and {there} "
            f"{'is' if there == 1 else 'are'} there for them; {_nodes(room.node for room in rooms)}",
            where="runtime.student.ranks",
            remedy=f"write {max(1, there)}, or cpu in runtime.devices.student, or add GPUs",
        )
    if not there:
        free = [(room, list(range(len(room.cards)))) for room, _ in free]
    alone = [(room, cards) for room, cards in free if len(cards) >= len(ranks) and room.suits(where, len(ranks))]
    if alone:
        free = [min(alone, key=lambda one: (not one[0].numbered, len(one[1])))]
    places = ((room, card) for room, cards in sorted(free, key=lambda one: -len(one[1])) for card in cards)
    for role in ranks:
        found = next(((room, card) for room, card in places if room.suits(where)), None)
        if found is None:
            raise _taken(role, where, rooms)
        found[0].seat(role, where, found[1])


def _seat_on_cores(asked: Mapping[str, Where], rooms: Sequence[_Room]) -> None:
    """Ranks on one node if one has a core for each; everybody else where most cores are left."""
    ranks = [role for role in asked if is_rank(role)]
    whole = [
        room
        for room in rooms
        if ranks and room.suits(asked[ranks[0]], len(ranks)) and room.node.cpus >= len(ranks) + len(room.roles)
    ]
    home = max(whole, key=lambda room: room.node.cpus, default=None)
    for role in sorted(asked, key=lambda role: not is_rank(role)):
        fitting = [home] if home and role in ranks else [room for room in rooms if room.suits(asked[role])]
        if not fitting:
            raise _taken(role, asked[role], rooms)
        room = min(fitting, key=lambda room: ((len(room.roles) + 1) / room.node.cpus, any(map(is_rank, room.roles))))
        room.seat(role, asked[role])


def _bundle(cpus: float, cards: int, wheres: Sequence[Where]) -> Bundle:
    labels = {name: value for where in wheres for name, value in where.labels.items()}
    resources = Counter[str]()
    for where in wheres:
        resources.update(where.resources)
    return Bundle(_rounded(cpus * len(wheres)), cards, labels, dict(resources))


def _finds_room(bundles: Sequence[Bundle], machine: Machine) -> bool:
    """Whether Ray, which places one bundle after the other and takes none back, places all even if it begins with
    those that could go anywhere, on nodes that others need."""
    free = [(node, {"CPU": node.cpus, "GPU": float(node.gpus), **node.resources}) for node in machine.members]
    needed = Counter(index for bundle in bundles for index, (node, _) in enumerate(free) if _is_picky(bundle, node))
    for bundle in sorted(bundles, key=lambda bundle: (-bundle.gpus, -bundle.cpus, len(bundle.labels))):
        asked = bundle.asked()
        fitting = [
            index
            for index, (node, left) in enumerate(free)
            if _has_labels(node, bundle.labels) and all(left.get(name, 0) + 1e-9 >= a for name, a in asked.items())
        ]
        if not fitting:
            return False
        _, left = free[max(fitting, key=lambda index: needed[index])]
        for name, amount in asked.items():
            left[name] -= amount
    return True


def _is_picky(bundle: Bundle, node: Node) -> bool:
    """Whether a bundle asks for more than cores, and this node has it."""
    special = bool(bundle.gpus or bundle.labels or bundle.resources)
    enough = node.gpus >= bundle.gpus and all(node.resources.get(n, 0) >= a for n, a in bundle.resources.items())
    return special and enough and _has_labels(node, bundle.labels)


def _has_labels(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(name) == value for name, value in labels.items())


def _index(where: Where) -> int:
    return int(where.device.partition(":")[2] or 0)


def _may_host(node: Node, where: Where) -> bool:
    """Whether a node has what one process asks for, if nobody else takes it."""
    cards = _index(where) + 1 if where.device.startswith("cuda") else 0
    enough = all(node.resources.get(name, 0.0) >= amount for name, amount in where.resources.items())
    return node.cpus > 0 and node.gpus >= cards and enough and _has_labels(node, where.labels)


def _wants_card(where: Where, machine: Machine) -> bool:
    on_any = where.device == "auto" and any(node.gpus for node in machine.members if _may_host(node, where))
    return on_any or where.device.startswith("cuda")


def _rounded(amount: float) -> float:
    """Down to the ten-thousandths in which Ray counts."""
    return math.floor(round(1e4 * amount, 6)) / 1e4


def _nodes(nodes: Iterable[Node]) -> str:
    return f"nodes: {', '.join(map(str, nodes))}"


def _nowhere(role: str, where: Where, machine: Machine) -> ManifestError:
    """Why no node can host a role."""
    place = f"runtime.devices.{device_field(role)}"
    if where.device.startswith("cuda") and not machine.gpus:
        return ManifestError(
            f"{role} is pinned to {where.device}, and Ray sees no GPU",
            where=place,
            remedy="use auto or cpu, or start Ray where the GPU is",
        )
    asked = [where.device] if where.device.startswith("cuda") else []
    asked += [f"the label {name}={value}" for name, value in where.labels.items()]
    asked += [f"{amount:g} of the resource {name}" for name, amount in where.resources.items()]
    return ManifestError(
        f"{role} asks for {', '.join(asked) or 'a processor'}, and no node has that; {_nodes(machine.members)}",
        where=place,
        remedy="write what a node has; `ray start` takes --labels, --resources and --num-gpus",
    )


def _taken(role: str, where: Where, rooms: Iterable[_Room]) -> ManifestError:
    """Why no node can host a role any more."""
    asked = ", ".join(f"{amount:g} of {name}" for name, amount in where.resources.items())
    return ManifestError(
        f"{role} asks for {asked}, which other roles of this run take; {_nodes(room.node for room in rooms)}",
        where=f"runtime.devices.{device_field(role)}.resources",
        remedy="ask for less, or start nodes with more",
    )


def threads(runtime: Runtime, machine: Machine) -> int:
    """Torch threads of each actor but the student's: the manifest's, or all cores of its node, of a mean one where
    nodes differ. Nodes that only run the driver do not count.

    Cores are not divided up: the student has most of the work, and its teachers are ahead of it most of the time. On
    two cores a step with two teachers took 7.0 s with two threads each, and 11.0 s with one.
    """
    working = sum(node.cpus > 0 for node in machine.members)
    return runtime.threads or max(1, int(machine.cpus // max(1, working)))


def student_threads(runtime: Runtime, machine: Machine, placement: Placement) -> int:
    """Torch threads of each rank: the manifest's, or the cores of its node divided by the ranks there."""
    return runtime.student.threads or runtime.threads or max(1, threads(runtime, machine) // placement.beside)


def student_store(runtime: Runtime, machine: Machine) -> int:
    """Bytes that the object store of the student's node has at least; 0 where that is not known."""
    where = runtime.devices.of("student")
    return min((node.store_bytes for node in machine.members if _may_host(node, where)), default=0)


def describe(slots: Mapping[str, Slot]) -> dict[str, str]:
    """Placement in words, for ``plan``."""
    return {role: f"{slot.device} ({slot.cpus:g} CPU, {slot.gpus:g} GPU)" for role, slot in slots.items()}


@dataclass(frozen=True)
class Traffic:
    """What went through one actor since it was last asked to count from nothing.

    Args:
        node: its name.
        sent, received: bytes of signals.
        waited: seconds in which it had no step to do.
    """

    node: str
    sent: int = 0
    received: int = 0
    waited: float = 0.0


class Measured:
    """An actor whose memory and traffic are measured."""

    sent_bytes = 0
    received_bytes = 0
    waited_seconds = 0.0

    def reset_peak(self) -> bool:
        """Count the peak of memory, and the traffic, from here; False where only the peak since the process began can
        be had."""
        self.sent_bytes, self.received_bytes, self.waited_seconds = 0, 0, 0.0
        return reset_peak()

    def memory(self) -> ProcessMemory:
        """The peak of this process; actors that share one give the same answer."""
        return process_memory()

    def traffic(self, node: str) -> Traffic:
        """What was sent and received from here, on the node of that name."""
        return Traffic(node, self.sent_bytes, self.received_bytes, self.waited_seconds)


@dataclass(frozen=True)
class Host:
    """One actor's surroundings.

    Args:
        machine: its name.
        cores: those that its process may use.
        waits: how its OpenMP threads wait; empty where nobody said.
        node: Ray's id of its node; one machine may be several.
    """

    machine: str
    cores: int
    waits: str
    node: str = field(default="", compare=False)


def look_around(actor: object) -> Host:
    """Runs in an actor, and says where it is."""
    import ray  # An actor has it already; a plan does without.

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return Host(socket.gethostname(), _cores(), os.environ.get("OMP_WAIT_POLICY", ""), node)


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
