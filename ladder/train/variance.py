"""The student's variance head: how sure it is of each dimension of its hidden state, told from that state.

Nothing else reads it. It learns from gold labels the temperature at which the student's predictions fit them, and does
not touch the training: the hidden states that it reads carry no gradient back, and it has an optimiser and a gradient
norm of its own. It is in the checkpoints, and never in what is exported.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ladder.distill import Spread, VarianceTemperature
from ladder.errors import RunError
from ladder.models import Head, Proof

START = 0.1
"""How far between its bounds the temperature begins: at a bound it would have no gradient."""
_LEAST, _MOST = -30.0, 6.0
"""Of a log-variance; no gradient passes beyond."""


class VarianceHead(nn.Module):
    """Log-variances [N, D] of hidden states [N, D]: a linear map in float32. It begins as one variance for all, and no
    random number is drawn for it, so a training goes on as it does without it."""

    def __init__(self, head: Head, settings: VarianceTemperature) -> None:
        super().__init__()
        self.head = (head,)  # In a tuple, because its weights are the model's.
        size, weight_VD = head.linear.in_features, head.linear.weight.detach()
        least = max(settings.low, settings.base)
        wanted = ((least + START * (settings.high - least)) / settings.base) ** (1 / settings.exponent)
        variance = (wanted - 1) / settings.slope / (head.scale**2 * weight_VD.float().square().sum(-1).mean().item())
        self.weight_DD = nn.Parameter(torch.zeros(size, size, device=weight_VD.device))
        self.bias_D = nn.Parameter(torch.full((size,), math.log(variance), device=weight_VD.device))

    def forward(self, hidden_ND: Tensor) -> Spread:
        """What the fused loss reads."""
        told_ND = nn.functional.linear(hidden_ND.detach().float(), self.weight_DD, self.bias_D)
        return Spread(told_ND.clamp(_LEAST, _MOST), self.head[0].linear.weight.detach())


def variance_head(proof: Proof, settings: VarianceTemperature) -> VarianceHead:
    """A new head.

    Raises:
        RunError: the output head is not proved, or is more than a product.
    """
    head, why = proof.head, proof.doubt
    if head is not None and head.cap is not None:
        why = f"its logits are capped at {head.cap:g}, so their variance is no sum over dimensions"
    elif head is not None and head.projection is not head.linear:
        why = "an adapter lies on it"
    if head is None or why:
        raise RunError(
            f"the output head has no weights that variances could be read off: {why}",
            where="student.variance_head",
            remedy="leave it out",
        )
    return VarianceHead(head, settings)
