"""A barrier around a reference: cross-entropy on labels, and what a student pays for being far from a teacher.

    L = CE + lambda relu(D - tau),    D = sqrt(mean_n d_n^2 + 1e-8)  or  mean_n d_n,
    d_n = KL(student || reference) = sum_v p_v (ln p_v - ln q_v)  or  KL(reference || student)

The mean of d_n hardly sees a loop, in which few tokens are far away; the root mean square does. Logits are made chunk
by chunk, twice: once for D, once for the gradient that D decides, so nothing [N, V] is ever there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ladder.distill.fused import Buffers, FusedLoss, FusedResult
from ladder.distill.kernels import slope
from ladder.distill.student import Student
from ladder.distill.temperature import Spread
from ladder.distill.tokens import Ahead, Prior, Source, Teachers, Tokens
from ladder.errors import LadderError

EPSILON = 1e-8
"""Under the root, which has no slope at 0: there a student begins that equals its reference."""


@dataclass(frozen=True)
class Barrier:
    """What a student pays for leaving a reference.

    Args:
        strength: lambda.
        slack: tau, in nats; up to it nothing is paid.
        direction: ``reverse``, KL(student || reference), or ``forward``.
        aggregate: of the tokens of a micro-batch: ``rms``, the root mean square, or ``mean``.
        reference: number of the teacher.
    """

    strength: float = 0.3
    slack: float = 0.5
    direction: Literal["reverse", "forward"] = "reverse"
    aggregate: Literal["rms", "mean"] = "rms"
    reference: int = 2

    def divergence(self, log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
        """d_n in nats, [N], from log-probabilities of student and reference."""
        first, second = (log_p_NV, log_q_NV) if self.direction == "reverse" else (log_q_NV, log_p_NV)
        return (first.exp() * (first - second)).sum(-1)

    def slope(self, log_p_NV: Tensor, log_q_NV: Tensor, distance_N: Tensor) -> Tensor:
        """d d_n / d logits of the student, [N, V]: p (ln p - ln q - d), or p - q."""
        if self.direction == "forward":
            return log_p_NV.exp() - log_q_NV.exp()
        return log_p_NV.exp() * (log_p_NV - log_q_NV - distance_N.unsqueeze(-1))

    def aggregated(self, distance_N: Tensor) -> tuple[Tensor, Tensor]:
        """D, and its derivative by each d_n."""
        count = max(1, len(distance_N))
        if self.aggregate == "mean":
            return distance_N.sum() / count, torch.full_like(distance_N, 1 / count)
        whole = (distance_N.square().sum() / count + EPSILON).sqrt()
        return whole, distance_N / (count * whole)


@dataclass(frozen=True)
class BarrierLoss(FusedLoss):
    """The fused loss, and a barrier on top. In its losses ``kd`` is D of the micro-batch, and ``regularizer`` what is
    paid for it, the same for each token that counts."""

    barrier: Barrier = field(default_factory=Barrier)

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
        """As ``FusedLoss``; the barrier counts every token that is trained.

        Raises:
            LadderError: the reference did not hear one of them.
        """
        found = super().__call__(student, teachers, tokens, ahead, weight_N, prior, spread)
        number = self.barrier.reference
        reference = teachers[number - 1] if number <= len(teachers) else None
        rows_n = (ahead.trained_N & tokens.kept_N).nonzero().squeeze(-1)
        if reference is None or not bool(reference.speaks_N[rows_n].all()):
            raise LadderError(f"the reference, teacher {number}, did not hear all {len(rows_n)} tokens of a barrier")
        if not len(rows_n):
            return found
        sweep = _Sweep(self, student, reference, rows_n)
        share = weight_N[rows_n].sum()
        total = found.total + share * _Paid.apply(sweep, *student.tensors)
        kept_N = torch.zeros_like(found.losses.kd).index_fill(0, rows_n, 1.0)
        losses = replace(found.losses, kd=kept_N * sweep.whole, regularizer=kept_N * sweep.paid)
        return replace(found, total=total, losses=losses)


class _Sweep:
    """Two passes over the rows of a micro-batch: the first finds D, the second the gradient."""

    def __init__(self, loss: BarrierLoss, student: Student, reference: Source, rows_n: Tensor) -> None:
        leaf = student.tensors[0]
        self.dtype = torch.promote_types(leaf.dtype, torch.float32)
        self.barrier, self.student, self.reference, self.rows_n = loss.barrier, student, reference, rows_n
        self.space = Buffers(loss, 1, leaf.device, self.dtype)
        with torch.no_grad():
            parts = [self.barrier.divergence(*self._logs(chunk_n)) for chunk_n in self.space.chunks(rows_n)]
            self.distance_n = torch.cat(parts)
            self.whole, self.slope_n = self.barrier.aggregated(self.distance_n)
            self.paid = self.barrier.strength * (self.whole - self.barrier.slack).clamp_min(0)

    def _logs(self, rows_n: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of student and reference; a removed id has none of the mass of either."""
        log_q_nV = self.space.logits(0, self.reference, rows_n).log_softmax(-1)
        return self.space.logits(-1, self.student, rows_n).log_softmax(-1), log_q_nV

    def gradients(self, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Of what is paid, by the student's tensors."""
        found, scale, cap = self.student.gradients(wanted), self.student.scale, self.student.cap
        if self.paid > 0:
            for chunk_n, distance_n, slope_n in zip(
                *(self.space.chunks(each) for each in (self.rows_n, self.distance_n, self.slope_n)), strict=True
            ):
                log_p_nV, log_q_nV = self._logs(chunk_n)
                gradient_nV = self.barrier.slope(log_p_nV, log_q_nV, distance_n)
                gradient_nV *= self.barrier.strength * slope_n.unsqueeze(-1)
                # The student's logits still stand in their buffer, for the derivative of the cap.
                found.add(chunk_n, gradient_nV * slope(self.space.space[-1, : len(chunk_n)], scale, cap))
        return found.sums


class _Paid(torch.autograd.Function):
    """Hands the gradients of a barrier to autograd."""

    @staticmethod
    def forward(ctx: Any, sweep: _Sweep, *tensors: Tensor) -> Tensor:
        ctx.sums = sweep.gradients(ctx.needs_input_grad[1:])
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return sweep.paid.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sums = zip(ctx.sums, ctx.dtypes, strict=True)
        return (None, *(None if part is None else (part * gradients[0]).to(dtype) for part, dtype in sums))
