"""A frozen teacher as a Ray actor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ladder.actors.measured import Measured
from ladder.data.collate import Batch
from ladder.data.dreams import Dream, Sampling
from ladder.models.load import load_tokenizer
from ladder.signals.statistics import CacheStatistics
from ladder.signals.teacher import Teacher, TeacherSpec
from ladder.signals.wire import Signal


class TeacherActor(Measured):
    """Hosts one teacher at a time; ``load`` replaces it, so that one actor serves a whole folder of manifests."""

    def __init__(self) -> None:
        self.teacher: Teacher | None = None

    def load(self, spec: TeacherSpec) -> str:
        """Host this generation; returns the digest of its tensors."""
        self.teacher = None
        self.teacher = Teacher(spec)
        return self.teacher.digest()

    def signal(self, batches: Sequence[Batch]) -> list[Signal]:
        """What the teacher says about each micro-batch of a step."""
        return [self._hosted().signal(batch) for batch in batches]

    def dream(
        self,
        tokenizer: Path,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        answer_turn: Sequence[int],
    ) -> list[Dream]:
        """One block of dreams."""
        return self._hosted().dream(load_tokenizer(tokenizer), prompts, sampling, seed, answer_turn)

    def digest(self) -> str:
        """Digest of the tensors in memory now."""
        return self._hosted().digest()

    def cache_statistics(self) -> CacheStatistics:
        """What its cache of signals did since it was loaded."""
        return self._hosted().cache_statistics

    def _hosted(self) -> Teacher:
        assert self.teacher is not None, "load comes first"
        return self.teacher
