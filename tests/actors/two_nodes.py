"""A teacher on one node and on two, slowed down so that it is what a student waits for; prints what was waited and what
was foretold, as JSON. A process of its own, because a cluster takes over the Ray of the process that makes it.

    python -m tests.actors.two_nodes FOLDER_OF_A_MODEL
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ladder.actors import settings
from ladder.actors.remote import StudentGroup, TeacherActor, TeacherHandle
from ladder.actors.session import fetch, stream
from ladder.data.batches import Batch, Batches, Collation
from ladder.data.examples import Example
from ladder.manifest import Runtime
from ladder.planning.pools import waited
from ladder.planning.traffic import TeacherTraffic, price_signals
from ladder.teachers import TeacherSpec
from ladder.teachers.wire import Signal, merged
from ladder.train.spec import StepClock, StepReport

STUDENT, TEACHER, STEPS, ROWS = 0.1, 0.22, 24, 16
"""Seconds of a student's step and of a teacher's mean step; steps, and rows of each."""
WIDTH = 9


class SlowTeacher(TeacherActor):
    """A real one, and then it sleeps for as long as what it read would take a large model."""

    def signal(self, number: int, batches: Sequence[Batch]) -> list[Signal]:
        spec, said = self.teachers[number].spec, super().signal(number, batches)
        heard = [batch.heard_by(number, replica=spec.replica, replicas=spec.replicas)[0] for batch in batches]
        time.sleep(TEACHER * sum(one.input_ids_BT.size for one in heard) / (ROWS * WIDTH))
        return said


class SlowStudent:
    """Puts together what it hears, and sleeps."""

    def __init__(self) -> None:
        self.clock, self.waits, self.bytes = StepClock(), list[float](), list[int]()

    def step(self, step: int, batches: Sequence[Batch], speakers: Sequence[int], *said: Sequence[Signal]) -> StepReport:
        self.waits.append(self.clock.begin())
        for batch, parts in zip(batches, zip(*said, strict=True), strict=True):
            signal = merged(parts)
            signal.check(len(batch.rows_N))
            assert len(signal.places) == len(batch.rows_N), "a token that no replica spoke of"
        self.bytes.append(sum(signal.nbytes for signals in said for signal in signals))
        time.sleep(STUDENT)
        self.clock.end()
        return StepReport(step, 0.0)

    def seen(self) -> tuple[list[float], list[int]]:
        return self.waits, self.bytes


def batches_of(ranks: int) -> Batches:
    rows = [Example((number % 250, *range(40, 39 + WIDTH)), (True,) * (WIDTH - 1), gold=True) for number in range(400)]
    return Batches({"new": rows}, {"new": 1.0}, ROWS, 1, 0, Collation(0, 24), ranks=ranks)


def streamed(folder: Path, nodes: Sequence[str], replicas: int, ranks: int) -> dict[str, Any]:
    """Train with so many replicas, each on a node of its own."""

    def actor(kind: type, node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        variables = {"env_vars": settings.travelling()}
        return ray.remote(num_cpus=0.25, scheduling_strategy=there, runtime_env=variables)(kind).remote()

    hosts = tuple(actor(SlowTeacher, nodes[-1 - place]) for place in range(replicas))
    students, batches = tuple(actor(SlowStudent, nodes[rank % 2]) for rank in range(ranks)), batches_of(ranks)
    teacher = TeacherHandle(hosts, 1)
    fetch([*teacher.load(TeacherSpec(folder, 1, "hidden", "float32").replicated(["cpu"] * replicas))])
    share = ray.put(batches(0))
    fetch([*teacher.signal(share)])  # First use takes longer.
    list(stream(StudentGroup(students), {1: teacher}, batches, range(STEPS), Runtime(), lambda: False))
    seen = fetch([student.seen.remote() for student in students])
    traffic = TeacherTraffic(1, False, 0)
    price_signals(batches, STEPS, [traffic], ranks=ranks)
    foretold = waited(STUDENT, [traffic.reading.seconds(TEACHER, 0.0, replicas)], Runtime().in_flight)
    for one in (*hosts, *students):
        ray.kill(one)
    return {"waited": sum(seen[0][0]), "foretold": foretold, "bytes": [received for _, received in seen]}


def main(folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        nodes = [node["NodeID"] for node in ray.nodes()]
        alone, pair = streamed(folder, nodes, 1, 1), streamed(folder, nodes, 2, 1)
        print(json.dumps({"alone": alone, "pair": pair, "ranks": streamed(folder, nodes, 2, 2)}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
