"""The loss of a step without an [N, V] tensor: chunk by chunk, with the gradient computed on the way forward.

For each chunk of tokens the teachers' and the student's logits are written into buffers that are used again and again;
tile by tile they become figures, routes, losses and the gradient of the student's logits, which two products turn at
once into gradients of its hidden states and head. With both teachers that is five products, the least there can be, and
four where the head is frozen. The dense reference is :func:`ladder.distill.token_losses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladder.distill.objective import TokenLosses
from ladder.distill.recipe import Recipe
from ladder.distill.routing import Routing, route
from ladder.distill.source import Teachers
from ladder.distill.student import Student
from ladder.distill.sweep import Sweep, teachers_evidence
from ladder.distill.tokens import Ahead, Tokens, closed_routes, needs_evidence


class FusedLoss(Recipe):
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
        rows_n = needs_evidence(tokens, self.settings).nonzero().squeeze(-1)
        if not len(rows_n):
            return ahead
        part = tokens.at(rows_n)
        evidence = teachers_evidence(self, tokens, teachers, rows_n)
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
