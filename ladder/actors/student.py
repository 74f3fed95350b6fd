"""The student as a group of ranks, of one for now: the group sends a step to every rank and listens to rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.actors.teacher import TeacherActor
from ladder.data.batches import Batch
from ladder.exam import Sampling
from ladder.models import Rounding
from ladder.teachers.wire import Signal
from ladder.train.spec import StepReport, TrainingSpec
from ladder.train.trainer import Trainer


@dataclass(frozen=True)
class Prepared:
    """A student that stands ready.

    Args:
        done: steps it has behind it.
        warnings: what is not as it was asked for, for a person to read.
    """

    done: int
    warnings: tuple[str, ...] = ()


class StudentActor(TeacherActor):
    """One rank. Hosts one student at a time, and the teachers that share its base."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Trainer | None = None

    def prepare(self, spec: TrainingSpec) -> Prepared:
        """Host this student, from its newest checkpoint if there is one."""
        self.trainer = None
        self.trainer = Trainer(spec, self.base_of(spec.stack, spec.manifest.student.dtype, spec.device))
        return Prepared(self.trainer.done, self.trainer.warnings)

    def step(self, step: int, batches: Sequence[Batch], speakers: Sequence[int], *said: Sequence[Signal]) -> StepReport:
        """One optimiser step; ``said`` holds the signals of each speaker. Repeating the last step changes nothing."""
        return self._hosted().step(step, batches, dict(zip(speakers, said, strict=True)))

    def checkpoint(self) -> int:
        """Save the state; returns the number of steps done."""
        return self._hosted().checkpoint()

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """Texts sampled from the child as it is now."""
        return self._hosted().sample(openings, sampling)

    def finish(self, folder: Path) -> Rounding | None:
        """Write the candidate folder durably and let the student go; says what rounding did."""
        rounding = self._hosted().finish(folder)
        self.trainer = None
        self.clear()
        return rounding

    def _hosted(self) -> Trainer:
        assert self.trainer is not None, "prepare comes first"
        return self.trainer


@dataclass(frozen=True)
class StudentGroup:
    """The ranks of one student. Methods return object references of rank 0."""

    ranks: tuple[Any, ...]

    def prepare(self, spec: TrainingSpec) -> Any:
        return self._all("prepare", spec)

    def step(self, step: int, batches: Any, speakers: Sequence[int], said: Sequence[Any]) -> Any:
        """``batches`` and ``said`` are object references; they go straight from where they are to the ranks."""
        return self._all("step", step, batches, tuple(speakers), *said)

    def checkpoint(self) -> Any:
        return self.ranks[0].checkpoint.remote()

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> Any:
        return self.ranks[0].sample.remote(openings, sampling)

    def finish(self, folder: Path) -> Any:
        return self.ranks[0].finish.remote(folder)

    def _all(self, method: str, *arguments: Any) -> Any:
        """Send to every rank, listen to the first."""
        heard = [getattr(rank, method).remote(*arguments) for rank in self.ranks]
        return heard[0]
