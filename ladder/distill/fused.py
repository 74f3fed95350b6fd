"""The loss of a step without an [N, V] tensor: chunk by chunk, with the gradient computed on the way forward.

For each chunk of tokens the teachers' and the student's logits are written into buffers that are used again and again;
tile by tile they become figures, routes, losses and the gradient of the student's logits, which two products turn at
once into gradients of its hidden states and head. With both teachers that is five products, the least there can be, and
four where the head is frozen. The dense reference is :func:`ladder.distill.token_losses`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladder.distill.chunks import Chunking, split, workspace
from ladder.distill.evidence import Evidence, Voice, concatenate, evidence_of
from ladder.distill.factors import Factors, shares_of
from ladder.distill.kernels import Kernels, kernels_of
from ladder.distill.objective import Objective, TokenLosses
from ladder.distill.routing import Routing, RoutingSettings, route
from ladder.distill.source import Source, Teachers, heard
from ladder.distill.student import Student
from ladder.distill.tile import LOWEST, Figures, subtract_labels
from ladder.distill.tokens import Ahead, Tokens, closed_routes, column_of, needed, needs_evidence
from ladder.distill.vocabulary import Columns, columns


@dataclass(frozen=True)
class FusedLoss:
    """What is computed, and how.

    Args:
        real_size: ids that the tokenizer knows; columns of a head past them are padding.
        taboo_ids: ids that take no part.
        compile: whether the element-wise part is compiled; the numbers are the same up to rounding.
        chunking: rows at a time; chosen from V and the device where it is None. Changes nothing but rounding.
    """

    objective: Objective
    settings: RoutingSettings
    real_size: int
    taboo_ids: tuple[int, ...] = ()
    compile: bool = False
    chunking: Chunking | None = None

    def columns(self) -> Columns:
        """The columns that take part, of a head without padding.

        Raises:
            ManifestError: a taboo id that the tokenizer does not have, or fewer than two columns left.
        """
        return columns(self.real_size, self.real_size, self.taboo_ids)

    def route_ahead(self, tokens: Tokens, teachers: Teachers) -> Ahead:
        """Decide what must be decided before the trained tokens of a step can be counted.

        Costs a product for each teacher and token without label (all tokens with granularity ``sequence``).

        Raises:
            LadderError: a token must be routed by a teacher that did not hear it.
            ModelError: a head has fewer columns than the tokenizer has ids.
        """
        self._check(*teachers)
        ahead = closed_routes(tokens, self.settings)
        rows_n = needs_evidence(tokens, self.settings).nonzero().squeeze(-1)
        if not len(rows_n):
            return ahead
        part = tokens.at(rows_n)
        evidence = self._evidence(part.labels_N, teachers, rows_n)
        routing = route(evidence, part.labels_N, self.settings, None, part.row_N)
        return Ahead(ahead.routing.replaced(rows_n, routing), ahead.open_N)

    def __call__(
        self, student: Student, teachers: Teachers, tokens: Tokens, ahead: Ahead, weight_N: Tensor
    ) -> FusedResult:
        """The weighted sum of token losses; ``total.backward()`` hands on gradients that are ready by then.

        Args:
            weight_N: the reduction weight of each token, float [N]; see ``reduction_weights``.

        Raises:
            LadderError: a route needs a teacher that did not hear the token.
            ModelError: a head has fewer columns than the tokenizer has ids.
        """
        self._check(student, *teachers)
        work = _Pass(self, student, teachers, tokens, ahead, weight_N)
        total = _GradientAhead.apply(work, *student.tensors)
        return FusedResult(total, work.losses, work.routing)

    def _check(self, *heads: Student | Source | None) -> None:
        """Every head has a column for each id."""
        for head in heads:
            if head is not None:
                columns(head.head_size, self.real_size, self.taboo_ids)

    def _evidence(self, labels_n: Tensor, teachers: Teachers, rows_n: Tensor) -> Evidence:
        """Statistics of these tokens, without the student."""
        speakers = heard(teachers, rows_n)
        desk = _Desk(self, 2, labels_n.device, torch.float32)
        parts = []
        for place_n in split(torch.arange(len(rows_n), device=rows_n.device), desk.chunking.chunk):
            logits = [desk.logits(number, source, rows_n[place_n]) for number, source in enumerate(speakers)]
            for tile in desk.tiles(len(place_n)):
                where_n = place_n[tile]
                found, js_n = desk.kernels.figures([part[tile] for part in logits], column_of(labels_n[where_n]))
                parts.append(self.evidence(found, js_n, speakers, rows_n[where_n], labels_n[where_n]))
        return concatenate(parts)

    def evidence(
        self, found: Sequence[Figures], js_n: Tensor, speakers: Sequence[Source], rows_n: Tensor, labels_n: Tensor
    ) -> Evidence:
        """Figures of a tile in the form that routing reads; what a teacher knows exactly replaces what was computed."""
        voices: list[Voice] = [source.known(rows_n) or one for one, source in zip(found, speakers, strict=True)]
        return evidence_of(voices, js_n, labels_n, self.settings.confidence, self.columns().size)


@dataclass(frozen=True, eq=False)
class FusedResult:
    """A micro-batch's part of the loss, and what it is made of.

    Args:
        total: a scalar that gradient flows from.
        losses: of each token [N], before reduction; 0 on SKIP.
        routing: of each token.
    """

    total: Tensor
    losses: TokenLosses
    routing: Routing


class _GradientAhead(torch.autograd.Function):
    """Hands the gradients that the forward pass has made to autograd."""

    @staticmethod
    def forward(ctx: Any, work: _Pass, *tensors: Tensor) -> Tensor:
        ctx.sums = work.run(ctx.needs_input_grad[1:])
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return (work.weight_N * work.losses.loss).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sums = zip(ctx.sums, ctx.dtypes, strict=True)
        return (None, *(None if part is None else _times(part, gradients[0]).to(dtype) for part, dtype in sums))


def _times(part: Tensor, factor: Tensor) -> Tensor:
    """``part`` times a scalar, in place; the usual 1 is left out where asking costs no wait for a GPU."""
    return part if not factor.is_cuda and factor.item() == 1.0 else part.mul_(factor)


class _Desk:
    """The buffers of a chunk, [buffers, chunk, V], and the kernels of a tile."""

    def __init__(self, fused: FusedLoss, buffers: int, device: torch.device, dtype: torch.dtype) -> None:
        self.chunking = fused.chunking or Chunking.of(fused.real_size, device)
        self.kernels: Kernels = kernels_of(fused.objective, fused.compile)
        self.taboo = torch.tensor(fused.taboo_ids, dtype=torch.int64, device=device)
        self.space = workspace(buffers, self.chunking.chunk, fused.real_size, dtype, device)

    def logits(self, number: int, source: Source | Student, rows_n: Tensor) -> Tensor:
        """The logits of these rows in buffer ``number``, removed columns at their lowest."""
        logits_nV = source.logits(rows_n, self.space[number, : len(rows_n)])
        return logits_nV.index_fill_(-1, self.taboo, LOWEST) if len(self.taboo) else logits_nV

    def tiles(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self.chunking.tile) for first in range(0, rows, self.chunking.tile))


class _Pass:
    """One pass over the tokens of a micro-batch."""

    def __init__(
        self, fused: FusedLoss, student: Student, teachers: Teachers, tokens: Tokens, ahead: Ahead, weight_N: Tensor
    ) -> None:
        leaf = student.tensors[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.fused, self.student, self.teachers, self.tokens = fused, student, teachers, tokens
        self.open_N, self.routing = ahead.open_N, ahead.routing
        self.any_open = bool(ahead.open_N.any())
        self.weight_N = weight_N.to(dtype)
        self.columns_N = column_of(tokens.labels_N)
        self.losses = TokenLosses(*torch.zeros(4, len(tokens), dtype=dtype, device=leaf.device))
        self.device, self.dtype = leaf.device, dtype

    def run(self, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Fill in losses and open routes; returns the gradients of the student's tensors."""
        gradients = self.student.gradients(wanted)
        desk = _Desk(self.fused, 4, self.device, self.dtype)
        for numbers, rows_N in self._groups():
            speakers = [source for number in numbers if (source := self.teachers[number]) is not None]
            for rows_n in split(rows_N, desk.chunking.chunk):
                gradients.add(rows_n, self._chunk(desk, speakers, rows_n))
        return gradients.sums

    def _groups(self) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """The trained tokens by which teachers must be asked: rows that ask fewer cost fewer products."""
        needs = needed(Ahead(self.routing, self.open_N), self.teachers, self.fused.objective)
        trained_N = self.open_N | self.routing.trained_N
        for numbers in ((), (0,), (1,), (0, 1)):
            rows_N = trained_N
            for number, needs_N in enumerate(needs):
                rows_N = rows_N & (needs_N if number in numbers else ~needs_N)
            if rows_N.any():
                yield numbers, rows_N.nonzero().squeeze(-1)

    def _chunk(self, desk: _Desk, speakers: Sequence[Source], rows_n: Tensor) -> Tensor:
        """The gradient of a chunk's raw logits, [n, V]."""
        logits = [desk.logits(number, source, rows_n) for number, source in enumerate(speakers)]
        student_nV, gradient_nV = desk.logits(2, self.student, rows_n), desk.space[3, : len(rows_n)]
        for tile in desk.tiles(len(rows_n)):
            parts = [logits_nV[tile] for logits_nV in logits]
            found = self._route(desk.kernels, speakers, parts, rows_n[tile])
            self._descend(desk.kernels, parts, found, student_nV[tile], gradient_nV[tile], rows_n[tile])
        return gradient_nV

    def _route(
        self, kernels: Kernels, speakers: Sequence[Source], logits: Sequence[Tensor], rows_n: Tensor
    ) -> Sequence[Figures]:
        """Route the tokens of a tile that are still open."""
        if not speakers:
            return ()
        labels_n = self.tokens.labels_N[rows_n]
        found, js_n = kernels.figures(logits, self.columns_N[rows_n])
        if not self.any_open:
            return found
        evidence = self.fused.evidence(found, js_n, speakers, rows_n, labels_n)
        decided = route(evidence, labels_n, self.fused.settings).where(self.open_N[rows_n], self.routing.at(rows_n))
        self.routing = self.routing.replaced(rows_n, decided)
        return found

    def _descend(
        self,
        kernels: Kernels,
        logits: Sequence[Tensor],
        found: Sequence[Figures],
        student_nV: Tensor,
        gradient_nV: Tensor,
        rows_n: Tensor,
    ) -> None:
        """Losses of a tile, and the gradient of its logits."""
        routing, part, columns_n = self.routing.at(rows_n), self.tokens.at(rows_n), self.columns_N[rows_n]
        factors = Factors.of(routing, part.labels_N, part.dreamer_N > 0, self.fused.objective, self.dtype)
        weights = factors.weights(self.weight_N[rows_n])
        shares = shares_of(routing, len(logits), self.dtype)
        teachers, bend = list(zip(logits, found, strict=True)), (self.student.scale, self.student.cap)
        terms = kernels.gradient(student_nV, teachers, shares, columns_n, weights, gradient_nV, *bend)
        subtract_labels(gradient_nV, student_nV, columns_n, weights, *bend)
        self.losses.fill_(rows_n, factors.losses(terms))
