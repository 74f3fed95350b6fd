"""The loss of a step without an [N, V] tensor: chunk by chunk, with the gradient computed on the way forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ladder.distill.device import free_bytes, onto, workspace
from ladder.distill.evidence import Evidence, concatenate
from ladder.distill.kernels import LOWEST, Kernels, kernels_of
from ladder.distill.objective import Objective, TokenLosses
from ladder.distill.routing import Routing, RoutingSettings, route
from ladder.distill.student import Student
from ladder.distill.tokens import (
    Ahead,
    Decided,
    Known,
    Source,
    Teachers,
    Tokens,
    closed_routes,
    heard,
    needed,
    needs_evidence,
)
from ladder.distill.vocabulary import Columns, columns

BUFFERS = 3
"""[chunk, V] buffers of a pass: teacher 1, teacher 2, and the student, whose logits give way to their gradient."""
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

    @property
    def kernels(self) -> Kernels:
        """The two kernels that a tile goes through."""
        return kernels_of(self.objective, self.settings, self.columns.size, self.compile)

    def check_heads(self, *heads: Student | Source | None) -> None:
        """Every head must have a column for each id.

        Raises:
            ModelError: one has fewer.
        """
        for head in heads:
            if head is not None:
                columns(head.head_size, self.real_size, self.taboo_ids)


_STUDENT = 2
"""The student's buffer; those before it are the teachers'."""


class Buffers:
    """The [n, V] space of a chunk, and the sizes of chunk and tile."""

    def __init__(self, recipe: FusedSettings, device: torch.device, dtype: torch.dtype) -> None:
        self.chunking, self.taboo = recipe.sizes(device), recipe.taboo(device)
        self.space = workspace(BUFFERS, self.chunking.chunk, recipe.real_size, dtype, device)

    def logits(self, number: int, source: Source | Student, rows_n: Tensor) -> Tensor:
        """The logits of these rows in buffer ``number``, removed columns at their lowest."""
        logits_nV = source.logits(rows_n, self.space[number, : len(rows_n)])
        return logits_nV.index_fill_(-1, self.taboo, LOWEST) if len(self.taboo) else logits_nV

    def chunks(self, rows_N: Tensor) -> Iterator[Tensor]:
        return split(rows_N, self.chunking.chunk)

    def tiles(self, rows: int) -> Iterator[slice]:
        return (slice(first, first + self.chunking.tile) for first in range(0, rows, self.chunking.tile))


def teachers_evidence(recipe: FusedSettings, tokens: Tokens, teachers: Teachers, rows_n: Tensor) -> Evidence:
    """Statistics of the teachers on these tokens, without the student.

    Args:
        rows_n: which of the tokens; where they lie on the CPU, nobody waits for a GPU.

    Raises:
        LadderError: a teacher did not hear all of them.
    """
    speakers, parts = heard(teachers, rows_n), []
    rows_n = onto(rows_n, tokens.labels_N.device)
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
        self,
        recipe: FusedSettings,
        student: Student,
        teachers: Teachers,
        tokens: Tokens,
        ahead: Ahead,
        weight_N: Tensor,
    ) -> None:
        # At least float32, as sums over V columns in half precision would lose the small probabilities.
        leaf = student.tensors[0]
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.recipe, self.student, self.teachers, self.ahead = recipe, student, teachers, ahead
        # Read once a micro-batch, because this process waits for a GPU there, and decides everything by it.
        self.needs = needed(ahead, teachers, recipe.objective)
        self.any_open = bool(self.needs.open_N.any())
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
        """The trained tokens by which teachers must be asked: rows that ask fewer cost fewer products.

        Grouped first and cut into chunks afterwards, so that all rows of a chunk need the same products: a token whose
        target is its label costs none of a teacher's, a dream only its dreamer's.
        """
        needs, device = self.needs, self.losses.loss.device
        for numbers in ((), (0,), (1,), (0, 1)):
            rows_N = needs.trained_N
            for number, needs_N in enumerate((needs.first_N, needs.second_N)):
                rows_N = rows_N & (needs_N if number in numbers else ~needs_N)
            if rows_N.any():
                yield numbers, onto(rows_N.nonzero().squeeze(-1), device)

    def _chunk(self, speakers: Sequence[Source], rows_n: Tensor) -> Tensor:
        """The gradient of a chunk's raw logits, [n, V]; its losses and routes are put in their places."""
        # The products of the whole chunk first, each at once; the tiles then read three buffers that are complete.
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


class FusedLoss(FusedSettings):
    """The fused loss of a recipe."""

    def route_ahead(self, tokens: Tokens, teachers: Teachers) -> Ahead:
        """Decide what must be decided before the trained tokens of a step can be counted.

        Costs a product for each teacher and token without label (all tokens with granularity ``sequence``).

        Raises:
            LadderError: a token must be routed by a teacher that did not hear it.
            ModelError: a head has fewer columns than the tokenizer has ids.
        """
        self.check_heads(*teachers)
        ahead = closed_routes(tokens, self.settings)
        # Which tokens these are, and which rows they make, is known on the CPU.
        asked_n = needs_evidence(tokens.on_host, self.settings).nonzero().squeeze(-1)
        if not len(asked_n):
            return ahead
        evidence = teachers_evidence(self, tokens, teachers, asked_n)
        rows_n = onto(asked_n, tokens.labels_N.device)
        routing = route(evidence, tokens.labels_N[rows_n], self.settings, None, tokens.on_host.row_N[asked_n])
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
        self.check_heads(student, *teachers)
        sweep = Sweep(self, student, teachers, tokens, ahead, weight_N)
        total = _GradientAhead.apply(sweep, *student.tensors)
        return FusedResult(total, sweep.losses, sweep.routing)


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
