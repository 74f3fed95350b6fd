"""The stream of a training on a virtual clock: ``ladder/actors/session.py``'s own loop and handles, with actors that
take time and bytes and do nothing. ``python benchmarks/cluster/simulate.py`` prints 1 to 64 ranks by 1 to 8 replicas.

A process works on one call after another, in order, and a call begins when everything that it is given has arrived, as
in Ray. Processes that share cores, and transfers that share a connection, slow each other down alike. Ranks end a step
together, after they exchanged their gradients. What is not in it: spilling, retries, what else uses the network.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cluster.sizes import MODELS, RATE, READING, TOKENS, Model
from ladder.actors.remote import StudentGroup, TeacherHandle
from ladder.actors.session import stream
from ladder.manifest import Runtime
from ladder.train.spec import StepReport


@dataclass(frozen=True)
class Node:
    """One machine.

    Args:
        cores: shared by its processes; infinite where each has a device of its own.
        bandwidth: bytes a second, out and in.
        store: bytes of its object store.
    """

    cores: float = inf
    bandwidth: float = inf
    store: float = inf


@dataclass(frozen=True)
class Costs:
    """One step's work, if one process did all of a role's.

    Args:
        student: seconds of a single rank for what the ranks share out; ``fixed`` those of each for what they do not,
            such as the optimiser's step.
        teachers: seconds of each teacher with a single process.
        wire: bytes that each teacher says.
        courier: seconds of the driver for making the batch.
        batch: bytes of the step's examples.
        exchange: seconds in which the ranks exchange gradients, once all are there; 0 for one rank.
        call: seconds that a call takes beside its work.
        threads: cores that a process uses while it works.
    """

    student: float
    teachers: tuple[float, ...]
    wire: tuple[float, ...]
    fixed: float = 0.0
    courier: float = 0.0
    batch: float = 0.0
    exchange: float = 0.0
    call: float = 0.0
    threads: float = 1.0


@dataclass(frozen=True)
class Layout:
    """Who works where. Ranks fill nodes one after another; processes of teachers take turns over theirs.

    Args:
        replicas: processes of each teacher.
        student, teachers: numbers of ``nodes``; the driver is on the first of ``student``.
    """

    ranks: int = 1
    replicas: int = 1
    nodes: tuple[Node, ...] = (Node(),)
    student: tuple[int, ...] = (0,)
    teachers: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Found:
    """What a simulated training showed, without its first and last steps.

    Args:
        step: seconds from one step's end to the next one's.
        waiting: share of the ranks' time in which they waited for signals or for each other, 0 to 1.
        busy: share of the teachers' time in which they worked.
        wire: most bytes that a node sent or received for a step.
        store: most bytes in a node's object store; ``overflow`` whether a node has less than it would need.
    """

    step: float
    waiting: float
    busy: float
    wire: float
    store: float
    overflow: bool


@dataclass(eq=False)
class _Activity:
    """Something that takes time: seconds left if nobody else wanted what it uses, and what happens then."""

    left: float
    uses: Mapping[tuple[str, int], float]
    then: Callable[[], None]


@dataclass(eq=False)
class Reference:
    """Something in object stores, or on its way there."""

    size: float
    node: int
    there: bool = False
    places: set[int] = field(default_factory=set)
    users: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)
    ended: float = 0.0


class Clock:
    """Activities that share what they use: each goes on at the rate that the scarcest of it allows."""

    def __init__(self, capacity: Mapping[tuple[str, int], float]) -> None:
        self.capacity, self.now, self._active = capacity, 0.0, list[_Activity]()

    def begin(self, seconds: float, uses: Mapping[tuple[str, int], float], then: Callable[[], None]) -> None:
        self._active.append(_Activity(seconds, uses, then))

    def tick(self, most: float = inf) -> None:
        """Go on to the next end of an activity, or for ``most`` seconds where that comes first."""
        wanted: dict[tuple[str, int], float] = {}
        for one in self._active:
            for resource, amount in one.uses.items():
                wanted[resource] = wanted.get(resource, 0.0) + amount
        rates = [
            min([1.0, *(self.capacity[resource] / wanted[resource] for resource in one.uses if wanted[resource])])
            for one in self._active
        ]
        needed = [one.left / rate for one, rate in zip(self._active, rates, strict=True)]
        passed = min([most, *needed])
        assert passed < inf, "everybody waits for somebody who does nothing"
        self.now += passed
        ended = [one for one, seconds in zip(self._active, needed, strict=True) if seconds <= passed]
        for one, rate in zip(self._active, rates, strict=True):
            one.left -= passed * rate
        self._active = [one for one in self._active if one not in ended]
        for one in ended:
            one.then()


class Cluster:
    """Virtual actors of one layout, and the two things that the stream asks Ray for: ``put`` and ``get``."""

    def __init__(self, costs: Costs, layout: Layout) -> None:
        self.costs, self.layout, count = costs, layout, len(layout.nodes)
        capacity = {("cores", number): node.cores for number, node in enumerate(layout.nodes)}
        links = {(way, number): 1.0 for way in ("out", "in") for number in range(count)}
        self.clock = Clock(capacity | links)
        self.moved, self.stored, self.peak = [0.0] * count, [0.0] * count, [0.0] * count
        self.arrived, self.ended = dict[int, list[Callable[[], None]]](), list[float]()
        ranks, replicas = layout.ranks, layout.replicas
        self.ranks = [Actor(self, layout.student[rank * len(layout.student) // ranks]) for rank in range(ranks)]
        places = [layout.teachers[place % len(layout.teachers)] for place in range(replicas * len(costs.teachers))]
        self.teachers = {
            number: [Actor(self, places[number * replicas + place]) for place in range(replicas)]
            for number in range(len(costs.teachers))
        }

    def put(self, value: object) -> Reference:
        """The driver's share of a batch."""
        made = Reference(self.costs.batch / self.layout.ranks, self.layout.student[0])
        self.is_there(made)
        return made

    def get(self, references: Sequence[Reference], patience: float) -> list[StepReport]:
        """Wait for all ranks' answers, and remember when the last one was there."""
        while not all(reference.there for reference in references):
            self.clock.tick()
        self.ended.append(max(reference.ended for reference in references))
        return [StepReport(len(self.ended) - 1, loss=0.0)]

    def sleep(self, seconds: float) -> None:
        """The driver is busy."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.tick(end - self.clock.now)

    def is_there(self, reference: Reference) -> None:
        reference.there, reference.ended = True, self.clock.now
        self._store(reference, reference.node)
        for then in reference.waiting:
            then()

    def bring(self, reference: Reference, node: int, then: Callable[[], None]) -> None:
        """Have it on a node, now or once it is there and has crossed the network."""
        if not reference.there:
            reference.waiting.append(lambda: self.bring(reference, node, then))
            return
        if node in reference.places or not reference.size:
            then()
            return
        self.moved[node] += reference.size
        self.moved[reference.node] += reference.size
        slowest = min(self.layout.nodes[number].bandwidth for number in (node, reference.node))

        def crossed() -> None:
            self._store(reference, node)
            then()

        uses = {("out", reference.node): 1.0, ("in", node): 1.0}
        self.clock.begin(reference.size / slowest, uses, crossed)

    def _store(self, reference: Reference, node: int) -> None:
        reference.places.add(node)
        self.stored[node] += reference.size
        self.peak[node] = max(self.peak[node], self.stored[node])

    def used(self, reference: Reference) -> None:
        """One who wanted it is done with it; the last one lets it go."""
        reference.users -= 1
        if not reference.users:
            for node in reference.places:
                self.stored[node] -= reference.size

    def meet(self, step: int, then: Callable[[], None]) -> None:
        """A rank has its gradients: all go on when all have exchanged them."""
        waiting = self.arrived.setdefault(step, [])
        waiting.append(then)
        if len(waiting) == self.layout.ranks:

            def exchanged() -> None:
                for go_on in self.arrived.pop(step):
                    go_on()

            self.clock.begin(self.costs.exchange if len(waiting) > 1 else 0.0, {}, exchanged)


class Actor:
    """One process: its calls in order, each once all that it is given lies on its node."""

    def __init__(self, cluster: Cluster, node: int) -> None:
        self.cluster, self.node, self.queue = cluster, node, deque[_Call]()
        self.idle = True
        self.worked = list[float]()
        self.signal, self.step = SimpleNamespace(remote=self._signal), SimpleNamespace(remote=self._step)

    def _signal(self, number: int, batches: Reference, *_: object) -> Reference:
        costs, parts = self.cluster.costs, self.cluster.layout.ranks * self.cluster.layout.replicas
        return self._call(costs.teachers[number] / parts, costs.wire[number] / parts, [batches])

    def _step(self, step: int, batches: Reference, speakers: Sequence[int], *said: Reference) -> Reference:
        costs, ranks = self.cluster.costs, self.cluster.layout.ranks
        return self._call(costs.student / ranks + costs.fixed, 0.0, [batches, *said], step)

    def _call(self, seconds: float, size: float, given: list[Reference], step: int | None = None) -> Reference:
        call = _Call(seconds + self.cluster.costs.call, given, Reference(size, self.node), step, missing=len(given))
        self.queue.append(call)

        def came() -> None:
            call.missing -= 1
            self._next()

        for reference in given:
            reference.users += 1
            self.cluster.bring(reference, self.node, came)
        return call.answer

    def _next(self) -> None:
        if self.idle and self.queue and not self.queue[0].missing:
            call, clock = self.queue.popleft(), self.cluster.clock
            self.idle = False
            began, uses = clock.now, {("cores", self.node): self.cluster.costs.threads}

            def ended() -> None:
                for reference in call.given:
                    self.cluster.used(reference)
                self.idle = True
                self.cluster.is_there(call.answer)
                self._next()

            def worked() -> None:
                self.worked.append(clock.now - began)
                if call.step is None:
                    ended()
                else:
                    self.cluster.meet(call.step, ended)

            clock.begin(call.seconds, uses, worked)


@dataclass
class _Call:
    seconds: float
    given: list[Reference]
    answer: Reference
    step: int | None
    missing: int


def simulate(costs: Costs, layout: Layout, in_flight: int = 3, steps: int = 32) -> Found:
    """Train so many steps; those that fill the pipeline and those that drain it are not counted."""
    cluster, runtime = Cluster(costs, layout), Runtime(in_flight=in_flight)

    def batches(step: int) -> list[int]:
        cluster.sleep(costs.courier)
        return [step] * layout.ranks

    teachers = {number: TeacherHandle(tuple(actors), number) for number, actors in cluster.teachers.items()}
    group, make, get, count = StudentGroup(tuple(cluster.ranks)), cluster.put, cluster.get, range(steps)
    for _ in stream(group, teachers, batches, count, runtime, lambda: False, put=make, get=get):  # type: ignore[arg-type]
        pass
    # What is in flight together may end in turns of unequal length, so whole rounds of it are counted.
    last, together = steps - in_flight - 2, in_flight + 1
    first = last - (last - steps // 4) // together * together
    seconds = cluster.ended[last] - cluster.ended[first]
    everybody = [actor for actors in cluster.teachers.values() for actor in actors]
    exchanged = (last - first) * costs.exchange if layout.ranks > 1 else 0.0
    at_work = sum(sum(rank.worked[first + 1 : last + 1]) for rank in cluster.ranks) / layout.ranks + exchanged
    asked = slice((first + 1) * layout.ranks, (last + 1) * layout.ranks)
    worked = sum(sum(actor.worked[asked]) for actor in everybody)
    return Found(
        step=seconds / (last - first),
        waiting=1.0 - at_work / seconds,
        busy=worked / len(everybody) / seconds if everybody else 0.0,
        wire=max(cluster.moved) / steps,
        store=max(cluster.peak),
        overflow=any(peak > node.store for peak, node in zip(cluster.peak, layout.nodes, strict=True)),
    )


RANKS, REPLICAS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8)
GPUS = 8
"""Of a node."""
BANDWIDTH = 50e9
"""Bytes a second of a node's network: 400 Gbit/s. Assumed."""


def of_model(model: Model, ranks: int, replicas: int) -> tuple[Costs, Layout]:
    """A step of so many tokens for each rank, on nodes of eight GPUs: the ranks' first, then those of the teachers. The
    exchange of gradients is taken to hide behind the backward pass."""
    tokens, students = ranks * TOKENS, -(-ranks // GPUS)
    reading = tokens * READING * model.teaching / RATE
    costs = Costs(
        student=tokens * model.training(3) / RATE,
        teachers=(reading, reading),
        wire=(tokens * model.wire("hidden"),) * 2,
        batch=tokens * 8.0 * 3,
        threads=0.0,
    )
    nodes = students + -(-2 * replicas // GPUS)
    return costs, Layout(
        ranks=ranks,
        replicas=replicas,
        nodes=(Node(bandwidth=BANDWIDTH),) * nodes,
        student=tuple(range(students)),
        teachers=tuple(range(students, nodes)),
    )


def table(model: Model, steps: int = 16) -> str:
    """Tokens a second by ranks and replicas of both teachers, and the share of time in which ranks wait."""
    lines = [["ranks", *(f"{replicas} replicas" if replicas > 1 else "1 of each teacher" for replicas in REPLICAS)]]
    lines.append(["---"] * len(lines[0]))
    for ranks in RANKS:
        found = [simulate(*of_model(model, ranks, replicas), steps=steps) for replicas in REPLICAS]
        cells = [f"{ranks * TOKENS / one.step:,.0f} ({one.waiting:.0%})" for one in found]
        lines.append([str(ranks), *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(table(next(model for model in MODELS if model.name == "7B")), end="")
