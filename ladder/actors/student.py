"""The student as a group of ranks, of one for now: the group sends a step to every rank and listens to rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.actors.measured import Measured
from ladder.data.collate import Batch
from ladder.signals.wire import Signal
from ladder.train.spec import StepReport, TrainingSpec
from ladder.train.trainer import Trainer


class StudentActor(Measured):
    """One rank. Hosts one student at a time."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None

    def prepare(self, spec: TrainingSpec) -> int:
        """Host this student, from its newest checkpoint if there is one; returns the number of steps done."""
        self.trainer = None
        self.trainer = Trainer(spec)
        return self.trainer.done

    def step(self, step: int, batches: Sequence[Batch], speakers: Sequence[int], *said: Sequence[Signal]) -> StepReport:
        """One optimiser step; ``said`` holds the signals of each speaker. Repeating the last step changes nothing."""
        return self._hosted().step(step, batches, dict(zip(speakers, said, strict=True)))

    def checkpoint(self) -> int:
        """Save the state; returns the number of steps done."""
        return self._hosted().checkpoint()

    def finish(self, folder: Path) -> None:
        """Write the candidate folder durably and let the student go."""
        self._hosted().finish(folder)
        self.trainer = None

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

    def finish(self, folder: Path) -> Any:
        return self.ranks[0].finish.remote(folder)

    def _all(self, method: str, *arguments: Any) -> Any:
        """Send to every rank, listen to the first."""
        heard = [getattr(rank, method).remote(*arguments) for rank in self.ranks]
        return heard[0]
