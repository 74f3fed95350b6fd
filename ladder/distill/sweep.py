"""One pass over the tokens of a micro-batch: chunk by chunk through the products, tile by tile through the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ladder.distill.chunks import BUFFERS, Chunking, split, workspace
from ladder.distill.evidence import Evidence, concatenate
from ladder.distill.objective import TokenLosses
from ladder.distill.recipe import Recipe
from ladder.distill.routing import Routing
from ladder.distill.source import Known, Source, Teachers, heard
from ladder.distill.student import Student
from ladder.distill.tile import LOWEST
from ladder.distill.tokens import Ahead, Decided, Tokens, needed

_STUDENT = 2
"""The student's buffer; those before it are the teachers'."""


class Buffers:
    """The [n, V] space of a chunk, and the sizes of chunk and tile."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
        self.chunking = recipe.chunking or Chunking.of(recipe.real_size, device)
        self.taboo = torch.tensor(recipe.taboo_ids, dtype=torch.int64, device=device)
        self.space = workspace(BUFFERS, self.chunking.chunk, recipe.real_size, dtype, device)

    def logits(self, number: int, source: Source | Student, rows_n: Tensor) -> Tensor:
        """The logits of these rows in buffer ``number``, removed columns at their lowest."""
        logits_nV = source.logits(rows_n, self.space[number, : len(rows_n)])
        return logits_nV.index_fill_(-1, self.taboo, LOWEST) if len(self.taboo) else logits_nV

    def chunks(self, rows_N: Tensor) -> Iterator[Tensor]:
        return split(rows_N, self.chunking.chunk)

    def tiles(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self.chunking.tile) for first in range(0, rows, self.chunking.tile))


def teachers_evidence(recipe: Recipe, tokens: Tokens, teachers: Teachers, rows_n: Tensor) -> Evidence:
    """Statistics of the teachers on these tokens, without the student.

    Raises:
        LadderError: a teacher did not hear all of them.
    """
    speakers, parts = heard(teachers, rows_n), []
    buffers = Buffers(recipe, rows_n.device, torch.float32)
    for chunk_n in buffers.chunks(rows_n):
        logits = [buffers.logits(number, source, chunk_n) for number, source in enumerate(speakers)]
        for tile in buffers.tiles(len(chunk_n)):
            known = [source.known(chunk_n[tile]) for source in speakers]
            labels_n = tokens.labels_N[chunk_n[tile]]
            _, evidence = recipe.kernels.listen([part[tile] for part in logits], known, labels_n)
            parts.append(evidence)
    return concatenate(parts)


class Sweep:
    """Losses, routes and gradients of a micro-batch; :meth:`run` fills them in."""

    def __init__(
        self, recipe: Recipe, student: Student, teachers: Teachers, tokens: Tokens, ahead: Ahead, weight_N: Tensor
    ) -> None:
        leaf = student.tensors[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.recipe, self.student, self.teachers, self.ahead = recipe, student, teachers, ahead
        self.any_open = bool(ahead.open_N.any())
        self.weight_N = weight_N.to(dtype)
        self.tokens = Decided(tokens.labels_N, tokens.dreamer_N > 0, self.weight_N, ahead.open_N, ahead.routing)
        self.buffers = Buffers(recipe, leaf.device, dtype)
        self.losses = TokenLosses(*torch.zeros(4, len(tokens), dtype=dtype, device=leaf.device))
        self.routing = ahead.routing

    def run(self, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Fill in losses and open routes; returns the gradients of the student's tensors."""
        gradients = self.student.gradients(wanted)
        for numbers, rows_N in self._groups():
            speakers = [source for number in numbers if (source := self.teachers[number]) is not None]
            for rows_n in self.buffers.chunks(rows_N):
                gradients.add(rows_n, self._chunk(speakers, rows_n))
        return gradients.sums

    def _groups(self) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """The trained tokens by which teachers must be asked: rows that ask fewer cost fewer products."""
        needs = needed(self.ahead, self.teachers, self.recipe.objective)
        for numbers in ((), (0,), (1,), (0, 1)):
            rows_N = self.ahead.trained_N
            for number, needs_N in enumerate(needs):
                rows_N = rows_N & (needs_N if number in numbers else ~needs_N)
            if rows_N.any():
                yield numbers, rows_N.nonzero().squeeze(-1)

    def _chunk(self, speakers: Sequence[Source], rows_n: Tensor) -> Tensor:
        """The gradient of a chunk's raw logits, [n, V]; its losses and routes are put in their places."""
        logits = [self.buffers.logits(number, source, rows_n) for number, source in enumerate(speakers)]
        student_nV, tokens = self.buffers.logits(_STUDENT, self.student, rows_n), self.tokens.at(rows_n)
        for tile in self.buffers.tiles(len(rows_n)):
            known = [source.known(rows_n[tile]) for source in speakers]
            losses, routing = self._tile([part[tile] for part in logits], known, student_nV[tile], tokens.at(tile))
            self.losses.fill_(rows_n[tile], losses)
            if self.any_open:
                self.routing = self.routing.replaced(rows_n[tile], routing)
        return student_nV

    def _tile(
        self, logits: Sequence[Tensor], known: Sequence[Known | None], student_nV: Tensor, tokens: Decided
    ) -> tuple[TokenLosses, Routing]:
        """Losses and routes of a tile; the student's logits become the gradient of its raw logits."""
        found, evidence = self.recipe.kernels.listen(logits, known, tokens.labels_n) if logits else ((), None)
        teachers = list(zip(logits, found, strict=True))
        routed_by = evidence if self.any_open else None
        return self.recipe.kernels.teach(student_nV, teachers, routed_by, tokens, self.student.scale, self.student.cap)
