"""One pass over the tokens of a micro-batch: chunk by chunk through the products, tile by tile through the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ladder.distill.chunks import Chunking, split, workspace
from ladder.distill.evidence import Evidence, concatenate
from ladder.distill.factors import Factors, shares_of
from ladder.distill.kernels import kernels_of
from ladder.distill.objective import TokenLosses
from ladder.distill.recipe import Recipe
from ladder.distill.routing import route
from ladder.distill.source import Source, Teachers, heard
from ladder.distill.student import Student
from ladder.distill.tile import LOWEST, Figures, subtract_labels
from ladder.distill.tokens import Ahead, Tokens, needed
from ladder.distill.vocabulary import column_of

_STUDENT, _GRADIENT, _BUFFERS = 2, 3, 4
"""Buffers: teacher 1, teacher 2, the student, and the gradient of the student's logits."""


class Buffers:
    """The [n, V] space of a chunk, and the sizes of chunk and tile."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
        self.chunking = recipe.chunking or Chunking.of(recipe.real_size, device)
        self.taboo = torch.tensor(recipe.taboo_ids, dtype=torch.int64, device=device)
        self.space = workspace(_BUFFERS, self.chunking.chunk, recipe.real_size, dtype, device)

    def logits(self, number: int, source: Source | Student, rows_n: Tensor) -> Tensor:
        """The logits of these rows in buffer ``number``, removed columns at their lowest."""
        logits_nV = source.logits(rows_n, self.space[number, : len(rows_n)])
        return logits_nV.index_fill_(-1, self.taboo, LOWEST) if len(self.taboo) else logits_nV

    def gradient(self, rows: int) -> Tensor:
        """Room for the gradient of a chunk."""
        return self.space[_GRADIENT, :rows]

    def chunks(self, rows_N: Tensor) -> Iterator[Tensor]:
        return split(rows_N, self.chunking.chunk)

    def tiles(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self.chunking.tile) for first in range(0, rows, self.chunking.tile))


def teachers_evidence(recipe: Recipe, tokens: Tokens, teachers: Teachers, rows_n: Tensor) -> Evidence:
    """Statistics of the teachers on these tokens, without the student.

    Raises:
        LadderError: a teacher did not hear all of them.
    """
    speakers, kernels = heard(teachers, rows_n), kernels_of(recipe.objective, recipe.compile)
    buffers, parts = Buffers(recipe, rows_n.device, torch.float32), []
    for chunk_n in buffers.chunks(rows_n):
        logits = [buffers.logits(number, source, chunk_n) for number, source in enumerate(speakers)]
        for tile in buffers.tiles(len(chunk_n)):
            labels_n = tokens.labels_N[chunk_n[tile]]
            found, js_n = kernels.figures([part[tile] for part in logits], column_of(labels_n))
            parts.append(recipe.evidence(found, js_n, speakers, chunk_n[tile], labels_n))
    return concatenate(parts)


class Sweep:
    """Losses, routes and gradients of a micro-batch; :meth:`run` fills them in."""

    def __init__(
        self, recipe: Recipe, student: Student, teachers: Teachers, tokens: Tokens, ahead: Ahead, weight_N: Tensor
    ) -> None:
        leaf = student.tensors[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.recipe, self.student, self.teachers, self.tokens = recipe, student, teachers, tokens
        self.ahead, self.routing = ahead, ahead.routing
        self.any_open = bool(ahead.open_N.any())
        self.weight_N = weight_N.to(dtype)
        self.columns_N = column_of(tokens.labels_N)
        self.kernels = kernels_of(recipe.objective, recipe.compile)
        self.losses = TokenLosses(*torch.zeros(4, len(tokens), dtype=dtype, device=leaf.device))
        self.device, self.dtype = leaf.device, dtype

    def run(self, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Fill in losses and open routes; returns the gradients of the student's tensors."""
        gradients = self.student.gradients(wanted)
        buffers = Buffers(self.recipe, self.device, self.dtype)
        for numbers, rows_N in self._groups():
            speakers = [source for number in numbers if (source := self.teachers[number]) is not None]
            for rows_n in buffers.chunks(rows_N):
                gradients.add(rows_n, self._chunk(buffers, speakers, rows_n))
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

    def _chunk(self, buffers: Buffers, speakers: Sequence[Source], rows_n: Tensor) -> Tensor:
        """The gradient of a chunk's raw logits, [n, V]."""
        logits = [buffers.logits(number, source, rows_n) for number, source in enumerate(speakers)]
        student_nV, gradient_nV = buffers.logits(_STUDENT, self.student, rows_n), buffers.gradient(len(rows_n))
        for tile in buffers.tiles(len(rows_n)):
            parts = [logits_nV[tile] for logits_nV in logits]
            found = self._route(speakers, parts, rows_n[tile])
            self._descend(parts, found, student_nV[tile], gradient_nV[tile], rows_n[tile])
        return gradient_nV

    def _route(self, speakers: Sequence[Source], logits: Sequence[Tensor], rows_n: Tensor) -> Sequence[Figures]:
        """Figures of a tile's teachers; its tokens that are still open are routed by them."""
        if not speakers:
            return ()
        labels_n = self.tokens.labels_N[rows_n]
        found, js_n = self.kernels.figures(logits, self.columns_N[rows_n])
        if self.any_open:
            evidence = self.recipe.evidence(found, js_n, speakers, rows_n, labels_n)
            decided = route(evidence, labels_n, self.recipe.settings)
            decided = decided.where(self.ahead.open_N[rows_n], self.routing.at(rows_n))
            self.routing = self.routing.replaced(rows_n, decided)
        return found

    def _descend(
        self,
        logits: Sequence[Tensor],
        found: Sequence[Figures],
        student_nV: Tensor,
        gradient_nV: Tensor,
        rows_n: Tensor,
    ) -> None:
        """Losses of a tile, and the gradient of its raw logits."""
        routing, part, columns_n = self.routing.at(rows_n), self.tokens.at(rows_n), self.columns_N[rows_n]
        factors = Factors.of(routing, part.labels_N, part.dreamer_N > 0, self.recipe.objective, self.dtype)
        weights = factors.weights(self.weight_N[rows_n])
        shares = shares_of(routing, len(logits), self.dtype)
        teachers, bend = list(zip(logits, found, strict=True)), (self.student.scale, self.student.cap)
        terms = self.kernels.gradient(student_nV, teachers, shares, columns_n, weights, gradient_nV, *bend)
        subtract_labels(gradient_nV, student_nV, columns_n, weights, *bend)
        self.losses.fill_(rows_n, factors.losses(terms))
