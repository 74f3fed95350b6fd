"""The actors of a run, and the driver's handles on them: frozen teachers, the student, and the evaluator.

The student is a group of ranks, of one for now: the group sends a step to every rank and listens to rank 0. The
evaluator examines the folder that would ship.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ladder.actors.placement import Measured
from ladder.data.batches import Batch
from ladder.exam import Outputs, PromptSet, Sampling, ask, harness
from ladder.models import Rounding, SharedBase, Stack
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.teachers import cache, teacher, wire
from ladder.train.spec import StepReport, TrainingSpec
from ladder.train.trainer import Trainer


@dataclass(frozen=True)
class Loaded:
    """A teacher that stands ready.

    Args:
        digest: of its tensors.
        kind: what it really sends.
        warnings: what is not as it was asked for, for a person to read.
    """

    digest: str
    kind: wire.Kind
    warnings: tuple[str, ...] = ()


class TeacherActor(Measured):
    """Hosts teachers by number; loading one replaces it, so that one actor serves a whole folder of manifests.

    Teachers that are stacks on the same base share it.
    """

    def __init__(self) -> None:
        self.teachers: dict[int, teacher.Teacher] = {}
        self.base: SharedBase | None = None

    def load_teacher(self, spec: teacher.TeacherSpec) -> Loaded:
        """Host this generation."""
        self.teachers.pop(spec.number, None)
        hosted = teacher.Teacher(spec, self.base_of(spec.stack, spec.dtype, spec.device))
        self.teachers[spec.number] = hosted
        return Loaded(hosted.digest(), hosted.kind, hosted.warnings)

    def signal(self, number: int, batches: Sequence[Batch]) -> list[wire.Signal]:
        """The teacher's signal for each micro-batch of a step."""
        signals = [self.teachers[number].signal(batch) for batch in batches]
        self.sent_bytes += sum(signal.nbytes for signal in signals)
        return signals

    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        """One block of dreams."""
        return self.teachers[dream_batch.teacher].dream(dream_batch)

    def digest(self, number: int) -> str:
        """Digest of the tensors in memory now."""
        return self.teachers[number].digest()

    def cache_statistics(self, number: int) -> cache.CacheStatistics:
        """Hits, misses and bytes of the teacher's signal cache since it was loaded."""
        return self.teachers[number].cache_statistics

    def clear(self) -> None:
        """Let all teachers and their base go."""
        self.teachers.clear()
        self.base = None

    def base_of(self, stack: Stack | None, dtype: str, device: str) -> SharedBase | None:
        """The base of a stack, loaded once; None for a generation that has its own model."""
        if stack is None:
            return None
        if self.base is None or self.base.folder != stack.base:
            self.base = SharedBase(stack.base, dtype, device)
        return self.base


@dataclass(frozen=True)
class TeacherHandle:
    """One teacher, whichever actor hosts it. Methods return object references."""

    actor: Any
    number: int

    def load(self, spec: teacher.TeacherSpec) -> Any:
        return self.actor.load_teacher.remote(spec)

    def signal(self, batches: Any) -> tuple[Any, ...]:
        """References to the parts of what it says about the micro-batches behind a reference; one for each process
        that hosts it."""
        return (self.actor.signal.remote(self.number, batches),)

    def dream(self, dream_batch: DreamBatch) -> Any:
        return self.actor.dream.remote(dream_batch)

    def digest(self) -> Any:
        return self.actor.digest.remote(self.number)

    def cache_statistics(self) -> Any:
        return self.actor.cache_statistics.remote(self.number)


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

    def step(
        self, step: int, batches: Sequence[Batch], speakers: Sequence[int], *said: Sequence[wire.Signal]
    ) -> StepReport:
        """One optimiser step. Repeating the last one changes nothing.

        Args:
            batches: this rank's micro-batches.
            speakers: whose signals ``said`` holds, one a micro-batch; a teacher of several processes comes as often.
        """
        parts: dict[int, list[Sequence[wire.Signal]]] = {}
        for number, signals in zip(speakers, said, strict=True):
            parts.setdefault(number, []).append(signals)
        whole = {number: [wire.merged(each) for each in zip(*told, strict=True)] for number, told in parts.items()}
        report = self._hosted().step(step, batches, whole)
        self.received_bytes += sum(signal.nbytes for signals in said for signal in signals)
        self.waited_seconds += report.waited
        return report

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

    def step(self, step: int, shares: Sequence[Any], said: Sequence[Mapping[int, Sequence[Any]]]) -> Any:
        """Send a step; signals go straight from where they are to the ranks.

        Args:
            shares: for each rank a reference to its micro-batches.
            said: for each rank the references to what each speaker says about them.
        """
        heard = []
        for rank, batches, told in zip(self.ranks, shares, said, strict=True):
            speakers = [number for number, parts in told.items() for _ in parts]
            heard.append(
                rank.step.remote(step, batches, speakers, *(part for parts in told.values() for part in parts))
            )
        return heard[0]

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


class EvaluatorActor:
    """Loads a model folder, generates for the exam, and frees the model."""

    def run_prompts(
        self, folder: Path, prompt_set: PromptSet, asker: Path, dtype: str, device: str, threads: int
    ) -> Outputs:
        """The generations of the model in ``folder`` for a prompt set, encoded by the tokenizer in ``asker``."""
        torch.set_num_threads(threads)
        return ask.run_prompts(folder, prompt_set, tokenizer_folder=asker, device=device, dtype=dtype)

    def run_suite(self, folder: Path, suite: harness.Suite, dtype: str, device: str, threads: int) -> dict[str, Any]:
        """The results of a task of lm-evaluation-harness for the model in ``folder``."""
        torch.set_num_threads(threads)
        return harness.evaluate(folder, suite, device, dtype)
