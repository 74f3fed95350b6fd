"""Watching a training by the laws of its manifest, and halting it where these say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.actors.session import fetch
from ladder.actors.student import StudentGroup
from ladder.errors import Halted
from ladder.gates.examine import sample_openings
from ladder.gates.law import Violation
from ladder.gates.paper import Sampling
from ladder.gates.watch import TRAINING_SAMPLES, Watch
from ladder.lawbook import prompts_of, watch_of
from ladder.lesson import data_of, own_probes
from ladder.models.load import load_tokenizer
from ladder.run import Run
from ladder.train.spec import StepReport

_REMEDY = (
    "nothing was recorded and HEAD stays; change data, training_params or the law: a changed manifest is another run"
)


def check_not_halted(run: Run) -> None:
    """Refuse to go on with a run that a law halted.

    Raises:
        Halted: it was.
    """
    if halted := run.notes().get("halted"):
        raise _halt(Violation(**halted), "was halted before")


@dataclass(frozen=True)
class Vigil:
    """The watch over one run.

    Args:
        start: the folder of the child's tokenizer.
    """

    run: Run
    watch: Watch
    start: Path

    @classmethod
    def of(cls, run: Run, start: Path, done: int) -> Vigil:
        """Begin, or go on from what was noted with the checkpoint of so many steps."""
        return cls(run, watch_of(run, run.marked(done)), start)

    @property
    def every(self) -> int | None:
        """Steps between two samples; None where none are read."""
        laws = self.run.request.manifest.laws.training
        return laws.sample_every if laws else None

    def leg(self, done: int, total: int, checkpoint_every: int) -> range:
        """The steps from here to the next checkpoint, sample or the end."""
        stops = [checkpoint_every, *([self.every] if self.every else [])]
        return range(done, min(total, *((done // stop + 1) * stop for stop in stops)))

    def see(self, report: StepReport) -> list[Violation]:
        """Judge one step; what must halt the run."""
        return self._halting(self.watch.see(report))

    def read(self, done: int, group: StudentGroup) -> list[Violation]:
        """Judge what the student writes after so many steps, where it is time; what must halt the run."""
        if self.every is None or done % self.every:
            return []
        return self._halting(self.watch.read(done, fetch(group.sample(self._openings(), self._sampling(done)))))

    def halt(self, violations: Sequence[Violation]) -> None:
        """Note that the run is over, and end it.

        Raises:
            Halted: there are violations.
        """
        if violations:
            self.run.note(halted=vars(violations[0]))
            raise _halt(violations[0], "halted the run")

    def to_dict(self) -> dict[str, Any]:
        """What the run notes at a checkpoint."""
        return self.watch.to_dict()

    def _halting(self, violations: list[Violation]) -> list[Violation]:
        return violations if self.run.request.manifest.laws.on_broken == "halt" else []

    def _openings(self) -> list[list[int]]:
        """What the texts begin with: the start token, and what the exam will ask for this child and its laws."""
        own = [probe.question() for probe in own_probes(self.run.request) if probe.is_written]
        controls = data_of(self.run.request).control_tokens
        prompts = [*own, *prompts_of(self.run.request)]
        return sample_openings(load_tokenizer(self.start), prompts, self._sampling(0).count, controls)

    def _sampling(self, done: int) -> Sampling:
        manifest = self.run.request.manifest
        count = min(TRAINING_SAMPLES, manifest.laws.sampled_answers)
        return Sampling(count, manifest.laws.sampled_tokens, manifest.seeds.data + done)


def _halt(broken: Violation, what: str) -> Halted:
    return Halted(f"law {broken.law} {what} at {broken.where}: {broken.found}", where="laws.training", remedy=_REMEDY)
