"""The loss of a step without an [N, V] tensor: chunk by chunk, with the gradient computed on the way forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ladder.distill.device import free_bytes, onto, workspace
from ladder.distill.evidence import Evidence, concatenate
from ladder.distill.kernels import LOWEST, Kernels, kernels_of
from ladder.distill.objective import Objective, Seen, TokenLosses
from ladder.distill.routing import Routing, RoutingSettings, alone_routes, route
from ladder.distill.student import Student
from ladder.distill.temperature import Spread, head_gradient
from ladder.distill.tokens import (
    Ahead,
    Decided,
    Prior,
    Source,
    Teachers,
    Tokens,
    Told,
    answering,
    closed_routes,
    grouped,
    needed,
    needs_evidence,
    passed_by_all,
)
from ladder.distill.vocabulary import IGNORE, Columns, column_of, columns


def buffers(teachers: int) -> int:
    """[chunk, V] buffers of a pass: one of each teacher, and the student's, whose logits give way to their gradient."""
    return teachers + 1


_CHUNK_BYTES = 128 * 2**20
_TILE_BYTES = 8 * 2**20
_GPU_SHARE = 0.02
"""Share of what is free of a GPU for one buffer of a chunk."""
_GPU_MOST = 4096
"""Rows of a chunk on a GPU: with more, its products get no faster."""
_GPU_TILE_BYTES = 64 * 2**20
"""Of a tile on a GPU: a pass over it takes ten times as long as the start of a kernel, and where nothing is compiled up
to eighteen tensors of that size live at once."""


@dataclass(frozen=True)
class Chunking:
    """Rows of a chunk and of a tile, at least 1 each."""

    chunk: int
    tile: int

    @classmethod
    def of(cls, columns: int, device: torch.device) -> Chunking:
        """What suits float32 buffers [n, V] on this device, with what is free of it now. Chunks on a GPU are powers of
        two, so that a little more or less that is free changes nothing; on one that is not at hand they are the
        largest."""
        row = 4 * columns
        if device.type == "cuda":
            free = free_bytes(device)
            most = _GPU_MOST if free is None else _between(64, int(_GPU_SHARE * free) // row, _GPU_MOST)
            chunk = 1 << (most.bit_length() - 1)
            return cls(chunk, _between(1, _GPU_TILE_BYTES // row, chunk))
        chunk = _between(128, _CHUNK_BYTES // row, 1024)
        return cls(chunk, _between(1, _TILE_BYTES // row, chunk))

    def touched(self, tokens: int) -> int:
        """Rows of the longest chunk that so many tokens are split into: as much of the buffers is ever touched."""
        return -(-tokens // -(-tokens // self.chunk)) if tokens else 0


def split(rows_N: Tensor, size: int) -> Iterator[Tensor]:
    """Parts of at most ``size`` rows, as equal as can be."""
    if len(rows_N):
        yield from rows_N.tensor_split(-(-len(rows_N) // size))


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


@dataclass(frozen=True)
class FusedSettings:
    """Objective, routing table, vocabulary, and the way of computing.

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

    @cached_property
    def columns(self) -> Columns:
        """The columns that take part, of a head without padding. Made once, with the index of its ids.

        Raises:
            ManifestError: a taboo id that the tokenizer does not have, or fewer than two columns left.
        """
        return columns(self.real_size, self.real_size, self.taboo_ids)

    @cached_property
    def _sizes(self) -> dict[torch.device, Chunking]:
        return {}

    def sizes(self, device: torch.device) -> Chunking:
        """Rows at a time on this device. Chosen at the first step and kept, because what is free of a GPU changes from
        step to step, and rounding with it."""
        if self.chunking is not None:
            return self.chunking
        if device not in self._sizes:
            self._sizes[device] = Chunking.of(self.real_size, device)
        return self._sizes[device]

    def keep(self, chunking: Chunking, device: torch.device) -> None:
        """Take these sizes on this device: those of the run that is gone on with."""
        self._sizes[device] = chunking

    @cached_property
    def _taboo(self) -> dict[torch.device, Tensor]:
        return {}

    def taboo(self, device: torch.device) -> Tensor:
        """The removed ids, int64, sent to this device once."""
        if device not in self._taboo:
            self._taboo[device] = onto(torch.tensor(self.taboo_ids, dtype=torch.int64), device)
        return self._taboo[device]

    def kernels(self, speakers: int) -> Kernels:
        """The two kernels that a tile goes through about which so many teachers are asked."""
        return kernels_of(self.objective, self.settings, self.columns.size, self.compile, speakers)

    def check_heads(self, *heads: Student | Source | None) -> None:
        """Every head must have a column for each id.

        Raises:
            ModelError: one has fewer.
        """
        for head in heads:
            if head is not None:
                columns(head.head_size, self.real_size, self.taboo_ids)


class Buffers:
    """The [n, V] space of a chunk, and the sizes of chunk and tile."""

    def __init__(self, recipe: FusedSettings, teachers: int, device: torch.device, dtype: torch.dtype) -> None:
        self.chunking, self.taboo = recipe.sizes(device), recipe.taboo(device)
        self.space = workspace(buffers(teachers), self.chunking.chunk, recipe.real_size, dtype, device)

    def logits(self, number: int, source: Source | Student, rows_n: Tensor) -> Tensor:
        """The logits of these rows in buffer ``number`` (the last one is the student's), removed columns at their
        lowest."""
        logits_nV = source.logits(rows_n, self.space[number, : len(rows_n)])
        return logits_nV.index_fill_(-1, self.taboo, LOWEST) if len(self.taboo) else logits_nV

    def chunks(self, rows_N: Tensor) -> Iterator[Tensor]:
        return split(rows_N, self.chunking.chunk)

    def tiles(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self.chunking.tile) for first in range(0, rows, self.chunking.tile))


def teachers_evidence(recipe: FusedSettings, tokens: Tokens, speakers: Sequence[Source], rows_n: Tensor) -> Evidence:
    """Statistics of teachers on these tokens, without the student.

    Args:
        speakers: all of them heard all of these tokens.
        rows_n: which of the tokens, where they lie.
    """
    space, parts = Buffers(recipe, len(speakers), rows_n.device, torch.float32), list[Evidence]()
    kernels = recipe.kernels(len(speakers))
    for chunk_n in space.chunks(rows_n):
        logits = [space.logits(number, source, chunk_n) for number, source in enumerate(speakers)]
        for tile in space.tiles(len(chunk_n)):
            known = [source.known(chunk_n[tile]) for source in speakers]
            labels_n = tokens.labels_N[chunk_n[tile]]
            _, evidence = kernels.listen([part[tile] for part in logits], known, labels_n)
            parts.append(evidence)
    return concatenate(parts)


class Sweep:
    """Losses, routes and gradients of a micro-batch; :meth:`run` fills them in."""

    def __init__(
        self,
        recipe: FusedSettings,
        student: Student,
        teachers: Teachers,
        tokens: Tokens,
        ahead: Ahead,
        weight_N: Tensor,
        prior: Prior | None = None,
        spread: Spread | None = None,
    ) -> None:
        # At least float32, as sums over V columns in half precision would lose the small probabilities.
        leaf = student.tensors[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.recipe, self.student, self.teachers, self.prior = recipe, student, teachers, prior
        self.spread = spread
        self.spread_sum = torch.zeros_like(spread.log_variance_ND) if spread else None
        self.own_temperature = torch.zeros(len(tokens), dtype=dtype, device=leaf.device) if spread else None
        # Read once a micro-batch, because this process waits for a GPU there, and decides everything by it.
        needs = needed(ahead, teachers, recipe.objective)
        self.any_open = bool(needs.open_N.any())
        self.weight_N = weight_N.to(dtype)
        self.tokens = Decided(tokens.labels_N, tokens.dreamer_N > 0, self.weight_N, ahead.open_N, ahead.routing)
        self.groups = list(grouped(needs.teachers_KN, needs.trained_N.nonzero().squeeze(-1)))
        most = max((len(slots) for slots, _ in self.groups), default=0)
        self.space = Buffers(recipe, most, leaf.device, dtype)
        self.losses = TokenLosses(*torch.zeros(4, len(tokens), dtype=dtype, device=leaf.device))
        self.seen = Seen(*torch.zeros(3, len(tokens), dtype=dtype, device=leaf.device))
        self.routing, self.told = ahead.routing, ahead.told

    def run(self, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Fill in losses and open routes; returns the gradients of the student's tensors, and of its log-variances
        where it has them."""
        own = len(self.student.tensors)
        gradients, device = self.student.gradients(wanted[:own]), self.losses.loss.device
        # Grouped first and cut into chunks afterwards, so that all rows of a chunk need the same products: a token
        # whose target is its label costs none of a teacher's, a dream only its dreamer's.
        for slots, rows_N in self.groups:
            alone_S = alone_routes(slots, device)
            for rows_n in self.space.chunks(onto(rows_N, device)):
                gradients.add(rows_n, self._chunk(slots, alone_S, rows_n))
        return gradients.sums if self.spread is None else (*gradients.sums, self.spread_sum)

    def _chunk(self, slots: Sequence[int], alone_S: Tensor, rows_n: Tensor) -> Tensor:
        """The gradient of a chunk's raw logits, [n, V]; its losses and routes are put in their places."""
        speakers = [source for slot in slots if (source := self.teachers[slot]) is not None]
        # The products of the whole chunk first, each at once; the tiles then read buffers that are complete.
        logits = [self.space.logits(number, source, rows_n) for number, source in enumerate(speakers)]
        student_nV, tokens = self.space.logits(-1, self.student, rows_n), self.tokens.at(rows_n).of(slots)
        kernels, teachers = self.recipe.kernels(len(slots)), len(self.routing.weights_KN)
        for tile in self.space.tiles(len(rows_n)):
            part_n, labels_n, said = rows_n[tile], tokens.labels_n[tile], [part[tile] for part in logits]
            known = [source.known(part_n) for source in speakers]
            found, evidence = kernels.listen(said, known, labels_n) if said else ((), None)
            if evidence is not None and self.any_open:
                self.told.fill_(slots, part_n, evidence)
                if self.prior is not None:
                    evidence = replace(evidence, prior=self.prior(slots, part_n, evidence))
            if self.spread is not None:
                self._spread(self.spread, student_nV[tile], part_n, tokens.at(tile))
            losses, routing, seen = kernels.teach(
                student_nV[tile],
                list(zip(said, found, strict=True)),
                evidence if self.any_open else None,
                tokens.at(tile),
                alone_S,
                self.student.scale,
                self.student.cap,
            )
            self.losses.fill_(part_n, losses)
            self.seen.fill_(part_n, seen)
            if self.any_open:
                self.routing = self.routing.replaced(part_n, routing.among(teachers, slots))
        return student_nV

    def _spread(self, spread: Spread, student_nV: Tensor, rows_n: Tensor, tokens: Decided) -> None:
        """The student's own temperature on a tile, and what its log-variances learn from gold labels."""
        settings = self.recipe.objective.variance
        assert settings is not None and self.spread_sum is not None and self.own_temperature is not None
        weight_n = tokens.weight_n.where((tokens.labels_n != IGNORE) & ~tokens.dream_n, 0.0)
        told_nD, size = spread.log_variance_ND[rows_n], self.recipe.columns.size
        self.own_temperature[rows_n], self.spread_sum[rows_n] = head_gradient(
            student_nV,
            column_of(tokens.labels_n),
            weight_n,
            told_nD,
            spread.weight_VD,
            self.student.scale,
            size,
            settings,
        )


class FusedLoss(FusedSettings):
    """The fused loss of a recipe."""

    def route_ahead(self, tokens: Tokens, teachers: Teachers, prior: Prior | None = None) -> Ahead:
        """Decide what must be decided before the trained tokens of a step can be counted.

        Costs a product for each teacher and token without label (all tokens with granularity ``sequence``).

        Args:
            prior: of the teachers, where more is known of them than what they say.

        Raises:
            LadderError: a token must be routed by a teacher that did not hear it.
            ModelError: a head has fewer columns than the tokenizer has ids.
        """
        self.check_heads(*teachers)
        ahead = closed_routes(tokens, self.settings, teachers)
        # Which tokens these are, and which rows they make, is known on the CPU.
        host = tokens.on_host
        asked_N = needs_evidence(host, self.settings) & ~passed_by_all(teachers, host.kept_N)
        routing = ahead.routing
        for slots, asked_n in grouped(answering(teachers, asked_N), asked_N.nonzero().squeeze(-1)):
            rows_n = onto(asked_n, tokens.labels_N.device)
            speakers = [source for slot in slots if (source := teachers[slot]) is not None]
            evidence = teachers_evidence(self, tokens, speakers, rows_n)
            ahead.told.fill_(slots, rows_n, evidence)
            if prior is not None:
                evidence = replace(evidence, prior=prior(slots, rows_n, evidence))
            alone_S = alone_routes(slots, rows_n.device)
            decided = route(
                evidence, tokens.labels_N[rows_n], self.settings, None, host.row_N[asked_n], alone_S=alone_S
            )
            routing = routing.replaced(rows_n, decided.among(len(routing.weights_KN), slots))
        return replace(ahead, routing=routing)

    def __call__(
        self,
        student: Student,
        teachers: Teachers,
        tokens: Tokens,
        ahead: Ahead,
        weight_N: Tensor,
        prior: Prior | None = None,
        spread: Spread | None = None,
    ) -> FusedResult:
        """The weighted sum of token losses; ``total.backward()`` hands on gradients that are ready by then.

        Args:
            weight_N: the reduction weight of each token, float [N]; see ``reduction_weights``.
            prior: as ``route_ahead``.
            spread: how sure the student is of its hidden states, for an objective with ``variance``. Its gradient is
                that of no term of the loss (``temperature.head_gradient``).

        Raises:
            LadderError: a route needs a teacher that did not hear the token.
            ModelError: a head has fewer columns than the tokenizer has ids.
        """
        self.check_heads(student, *teachers)
        sweep = Sweep(self, student, teachers, tokens, ahead, weight_N, prior, spread)
        total = _GradientAhead.apply(sweep, *student.tensors, *([spread.log_variance_ND] if spread else []))
        return FusedResult(total, sweep.losses, sweep.routing, sweep.told, sweep.seen, sweep.own_temperature)


@dataclass(frozen=True, eq=False)
class FusedResult:
    """A micro-batch's part of the loss, and what it is made of.

    Args:
        total: a scalar that gradient flows from.
        losses: of each token [N], before reduction; 0 on SKIP.
        routing: of each token.
        told: what the teachers said about each of them that they were asked about.
        seen: of each token that is trained; 0 elsewhere.
        own_temperature: the student's own, [N]; None where it does not say how sure it is.
    """

    total: Tensor
    losses: TokenLosses
    routing: Routing
    told: Told
    seen: Seen
    own_temperature: Tensor | None = None


class _GradientAhead(torch.autograd.Function):
    """Hands the gradients that the forward pass has made to autograd."""

    @staticmethod
    def forward(ctx: Any, sweep: Sweep, *tensors: Tensor) -> Tensor:
        # Under autograd's no_grad, so nothing [n, V] is kept for a backward pass that does not come.
        ctx.sums = sweep.run(ctx.needs_input_grad[1:])
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return (sweep.weight_N * sweep.losses.loss).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sums = zip(ctx.sums, ctx.dtypes, strict=True)
        return (None, *(None if part is None else _times(part, gradients[0]).to(dtype) for part, dtype in sums))


def _times(part: Tensor, factor: Tensor) -> Tensor:
    """``part`` times a scalar, in place; the usual 1 is left out where asking costs no wait for a GPU."""
    return part if not factor.is_cuda and factor.item() == 1.0 else part.mul_(factor)
