"""The driver's loop: object references go straight from teachers to student; a bounded number of steps is in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from ladder.actors.session import fetch
from ladder.actors.student import StudentGroup
from ladder.actors.teacher import TeacherHandle
from ladder.data.batches import Batches
from ladder.manifest.schema import Runtime
from ladder.train.spec import StepReport


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
        batch = ray.put(batches(step))
        said = [teacher.signal(batch) for teacher in teachers.values()]
        pending.append(group.step(step, batch, tuple(teachers), said))
        if len(pending) > runtime.in_flight:
            yield fetch(pending.popleft(), patience)
    while pending:
        yield fetch(pending.popleft(), patience)
