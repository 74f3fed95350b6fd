"""ladder's step in one process: both teachers and the trainer, with ladder's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.school import School, make_manifest
from ladder.teachers.teacher import Teacher
from ladder.train.spec import StepReport


class LadderStep:
    """One step after another on the school's batch.

    Args:
        name: of the run's folder.
        told: further fields of ``TeacherSpec``, such as its cache.
        settings: for ``make_manifest``.
    """

    def __init__(self, place: School, name: str, told: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.batches = place.batches
        self.trainer = place.trainer(name, make_manifest(batch_size=place.shape.rows, **settings))
        self.teachers: dict[int, Teacher] = {
            number: place.teacher(number, **(told or {})) for number in self.trainer.spec.teachers
        }

    def __call__(self) -> StepReport:
        step = self.trainer.done
        batches = self.batches(step)
        said = {number: [teacher.signal(batch) for batch in batches] for number, teacher in self.teachers.items()}
        return self.trainer.step(step, batches, said)

    @property
    def routes(self) -> dict[str, int]:
        """Tokens by route in the last step."""
        assert self.trainer.last is not None, "a step comes first"
        return {route: count for route, count in self.trainer.last.routes.items() if count}
