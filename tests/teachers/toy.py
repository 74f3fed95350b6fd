"""A kind of teacher for tests: it knows pairs of tokens, "5 7" in a line of its files, and is silent about others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ladder.data.batches import Batch
from ladder.manifest.schema import Probability, Section
from ladder.teachers.kinds import Sparse, TeacherKind


class ToyOptions(Section):
    """How it speaks."""

    sure: Probability = 0.75
    """Probability of the token that follows."""


class Toy(TeacherKind):
    """A source for each file; the first file that knows a token speaks of it."""

    Options = ToyOptions
    needs = frozenset({"files"})
    asked: ClassVar[list[int]] = []
    """Tokens that any of them was asked about, a call each."""

    def __init__(self, material: Any) -> None:
        super().__init__(material)
        self.pairs: dict[int, tuple[int, int]] = {}
        for number, path in reversed(list(enumerate(material.files))):
            for line in path.read_text().splitlines():
                now, then = map(int, line.split())
                self.pairs[now] = (then, number)

    @classmethod
    def sources(cls, name: str, files: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{name}.{file}" for file in files)

    @classmethod
    def kept(cls, options: Mapping[str, Any]) -> int:
        return 1

    def say(self, batch: Batch) -> Sparse:
        now_N = batch.input_ids_BT.reshape(-1)[batch.rows_N].tolist()
        self.asked.append(len(now_N))
        told = [self.pairs.get(now, (0, -1)) for now in now_N]
        ids_N1 = np.array([[then] for then, _ in told], np.int32)
        sure = np.full((len(told), 1), self.material.options["sure"], np.float32)
        return Sparse(ids_N1, sure, np.array([origin for _, origin in told], np.int32))


class Dense(Toy):
    """The same as whole logits, and everywhere."""

    says = "logits"

    def say(self, batch: Batch) -> Any:
        import torch

        now_N = batch.input_ids_BT.reshape(-1)[batch.rows_N].tolist()
        logits_NV = torch.zeros(len(now_N), 300)
        for place, now in enumerate(now_N):
            logits_NV[place, self.pairs.get(now, (0, -1))[0]] = 4.0
        return logits_NV


class Liar(Toy):
    """It promises few probabilities and gives logits."""

    say = Dense.say
