"""ladder's step as it runs in a lesson: teachers and student as Ray actors, and the driver's stream between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.school import School, make_manifest

STEPS = 8
"""Steps a call streams; filling the pipeline at its start and draining it at its end are in their time."""


@contextmanager
def through_actors(place: School) -> Iterator[tuple[str, Callable[[], object]]]:
    """A session as ``ladder/run/train.py`` starts it; gives the contender's name and a call of ``STEPS`` steps."""
    from ladder.actors.placement import threads
    from ladder.actors.remote import TeacherHandle
    from ladder.actors.session import Session, fetch, hear, stream

    manifest = make_manifest(routing="agreement", batch_size=place.shape.rows)
    with Session() as session:
        roles = ("student", "teacher1", "teacher2")
        count = threads(manifest.runtime, session.machine)
        actors = session.start(session.placement(manifest.runtime, roles), roles)
        teachers = {number: TeacherHandle(actors[f"teacher{number}"], number) for number in (1, 2)}
        fetch([one.load(place.teacher_spec(number, threads=count)) for number, one in teachers.items()])
        group = session.group(actors)
        hear(group, group.prepare(place.spec("ladder-ray", manifest, threads=count)))
        done = 0

        def run() -> None:
            nonlocal done
            steps = range(done, done + STEPS)
            for report in stream(group, teachers, place.batches, steps, manifest.runtime, lambda: False):
                done = report.step + 1

        yield f"ladder, agreement routing, EMA, Ray actors of {count} thread{'s' * (count > 1)}", run
