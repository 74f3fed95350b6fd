"""The student's side of the fused loss: where its logits come from, and where their gradient goes.

Logits are a sum of products ``input [N, D_b] x weight [V, D_b]^T``, one a block: the head itself, and the low-rank pair
of each adapter on it, whose input ``h A^T`` is only r wide. A frozen block costs no product for its weight's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """One product: ``input_ND`` times the transpose of ``weight_VD``; gradient reaches whichever requires it."""

    input_ND: Tensor
    weight_VD: Tensor


class Student(Protocol):
    """What the fused loss needs of a student."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that gradient may reach, in the order in which :class:`Gradients` gives it back."""

    @property
    def head_size(self) -> int: ...

    @property
    def scale(self) -> float:
        """Factor on the raw logits, which are what gradient is passed back for."""

    @property
    def cap(self) -> float | None:
        """Soft cap: logits are ``cap tanh(scale raw / cap)``."""

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        """Write the logits of these tokens, after scale and cap, over the first V columns."""

    def gradients(self, wanted: Sequence[bool]) -> Gradients:
        """Sums of zero for the tensors that are wanted."""


class Gradients(Protocol):
    """Gradients that grow chunk by chunk, in float32 (float64 where the student is)."""

    @property
    def sums(self) -> tuple[Tensor | None, ...]:
        """In the order of ``Student.tensors``; None where it was not wanted."""

    def add(self, rows_n: Tensor, gradient_nV: Tensor) -> None:
        """Take in the gradient of these tokens' raw logits over the first V columns."""


@dataclass(frozen=True, eq=False)
class StudentHead:
    """A linear head over hidden states: blocks that are added up, a bias, a scale and a soft cap."""

    blocks: tuple[Block, ...]
    bias_V: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        pairs = tuple(tensor for block in self.blocks for tensor in (block.input_ND, block.weight_VD))
        return pairs if self.bias_V is None else (*pairs, self.bias_V)

    @property
    def head_size(self) -> int:
        return self.blocks[0].weight_VD.shape[0]

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        width = out_nV.shape[-1]
        for number, block in enumerate(self.blocks):
            # Not [rows_n], which would read a row of -1 from the end.
            product(block.input_ND.index_select(0, rows_n), block.weight_VD[:width].t(), out_nV, add=number > 0)
        if self.bias_V is not None:
            out_nV.add_(self.bias_V[:width])
        return shape_(out_nV, self.scale, self.cap)

    def gradients(self, wanted: Sequence[bool]) -> HeadGradients:
        sums = [_nothing(tensor) if want else None for tensor, want in zip(self.tensors, wanted, strict=True)]
        return HeadGradients(self, tuple(sums))


@dataclass(frozen=True, eq=False)
class HeadGradients:
    """Gradients of a :class:`StudentHead`."""

    head: StudentHead
    sums: tuple[Tensor | None, ...]

    def add(self, rows_n: Tensor, gradient_nV: Tensor) -> None:
        width, whole_nV = gradient_nV.shape[-1], gradient_nV
        for number, block in enumerate(self.head.blocks):
            input_sum, weight_sum = self.sums[2 * number : 2 * number + 2]
            # Once for both products.
            gradient_nV = narrowed(whole_nV, block.weight_VD)
            if input_sum is not None:
                part_nD = torch.empty(len(rows_n), input_sum.shape[-1], dtype=input_sum.dtype, device=input_sum.device)
                input_sum[rows_n] = product(gradient_nV, block.weight_VD[:width], part_nD)
            if weight_sum is not None:
                product(gradient_nV.t(), block.input_ND[rows_n], weight_sum[:width], add=True)
        if self.head.bias_V is not None and (bias_sum := self.sums[-1]) is not None:
            bias_sum[:width] += whole_nV.sum(0)


@dataclass(frozen=True, eq=False)
class StudentLogits:
    """A student whose head cannot be told from its backbone: its own logits [N, V], scaled and capped already."""

    logits_NV: Tensor
    scale: float = 1.0
    cap: float | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.logits_NV,)

    @property
    def head_size(self) -> int:
        return self.logits_NV.shape[-1]

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return out_nV.copy_(self.logits_NV[rows_n, : out_nV.shape[-1]])

    def gradients(self, wanted: Sequence[bool]) -> LogitsGradients:
        return LogitsGradients((_nothing(self.logits_NV) if wanted[0] else None,))


@dataclass(frozen=True, eq=False)
class LogitsGradients:
    """The gradient of a :class:`StudentLogits`."""

    sums: tuple[Tensor | None]

    def add(self, rows_n: Tensor, gradient_nV: Tensor) -> None:
        if self.sums[0] is not None:
            self.sums[0][rows_n, : gradient_nV.shape[-1]] = gradient_nV


def shape_(raw_nV: Tensor, scale: float, cap: float | None) -> Tensor:
    """Raw logits to logits, in place: ``cap tanh(scale raw / cap)``."""
    if scale != 1.0:
        raw_nV.mul_(scale)
    return raw_nV if cap is None else raw_nV.div_(cap).tanh_().mul_(cap)


def product(left: Tensor, right: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """``out = left @ right``, or ``out += left @ right``, accumulated in the dtype of ``out``.

    Half precision meets a float32 ``out``: on a GPU the product itself takes half-precision factors and accumulates
    into ``out``, without a tensor of its size beside it; on a CPU both factors are cast, because its half-precision
    products are slow.
    """
    if out.dtype != right.dtype or left.dtype != right.dtype:
        if not _sums_wide(out):
            left, right = left.to(out.dtype), right.to(out.dtype)
        else:
            half = right.dtype if left.dtype == out.dtype else left.dtype
            left, right = left.to(half), right.to(half)
            if add:
                return torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
            return torch.mm(left, right, out_dtype=out.dtype, out=out)
    return torch.addmm(out, left, right, out=out) if add else torch.mm(left, right, out=out)


def narrowed(left: Tensor, right: Tensor) -> Tensor:
    """``left`` as :func:`product` would take it beside ``right``, for whoever multiplies it more than once."""
    return left.to(right.dtype) if _sums_wide(left) and right.dtype.itemsize < left.dtype.itemsize else left


def _sums_wide(tensor: Tensor) -> bool:
    """Whether products of half precision are summed in float32 where this tensor lies."""
    return tensor.device.type == "cuda"


def _nothing(tensor: Tensor) -> Tensor:
    """Zeros of its shape, in float32 at least."""
    return torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
