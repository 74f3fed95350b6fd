"""Frozen teachers as Ray actors, and the driver's handle on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ladder.actors.placement import Measured
from ladder.data.batches import Batch
from ladder.models import SharedBase, Stack
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.teachers.cache import CacheStatistics
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Kind, Signal


@dataclass(frozen=True)
class Loaded:
    """A teacher that stands ready.

    Args:
        digest: of its tensors.
        kind: what it really sends.
        warnings: what is not as it was asked for, for a person to read.
    """

    digest: str
    kind: Kind
    warnings: tuple[str, ...] = ()


class TeacherActor(Measured):
    """Hosts teachers by number; loading one replaces it, so that one actor serves a whole folder of manifests.

    Teachers that are stacks on the same base share it.
    """

    def __init__(self) -> None:
        self.teachers: dict[int, Teacher] = {}
        self.base: SharedBase | None = None

    def load_teacher(self, spec: TeacherSpec) -> Loaded:
        """Host this generation."""
        self.teachers.pop(spec.number, None)
        teacher = Teacher(spec, self.base_of(spec.stack, spec.dtype, spec.device))
        self.teachers[spec.number] = teacher
        return Loaded(teacher.digest(), teacher.kind, teacher.warnings)

    def signal(self, number: int, batches: Sequence[Batch]) -> list[Signal]:
        """The teacher's signal for each micro-batch of a step."""
        return [self.teachers[number].signal(batch) for batch in batches]

    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        """One block of dreams."""
        return self.teachers[dream_batch.teacher].dream(dream_batch)

    def digest(self, number: int) -> str:
        """Digest of the tensors in memory now."""
        return self.teachers[number].digest()

    def cache_statistics(self, number: int) -> CacheStatistics:
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

    def load(self, spec: TeacherSpec) -> Any:
        return self.actor.load_teacher.remote(spec)

    def signal(self, batches: Any) -> Any:
        return self.actor.signal.remote(self.number, batches)

    def dream(self, dream_batch: DreamBatch) -> Any:
        return self.actor.dream.remote(dream_batch)

    def digest(self) -> Any:
        return self.actor.digest.remote(self.number)

    def cache_statistics(self) -> Any:
        return self.actor.cache_statistics.remote(self.number)
