"""Teachers that are models: an ancestor of the family, and a model of others. ladder loads them as any generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ladder.teachers.kinds.base import TeacherKind

if TYPE_CHECKING:
    from ladder.data.batches import Batch


class _Model(TeacherKind):
    """A Hugging Face folder."""

    is_model = True

    def say(self, batch: Batch) -> NoReturn:
        """Nobody asks: what a model says comes from its own forward pass (``ladder.teachers.Teacher``)."""
        raise NotImplementedError(f"{type(self).__name__} is a model")


class Generation(_Model):
    """An ancestor of the parent, by its name."""

    needs = frozenset({"generation"})


class Guest(_Model):
    """A model of others with the student's tokenizer. It is frozen and teaches, and is never part of the lineage."""

    needs = frozenset({"path"})
