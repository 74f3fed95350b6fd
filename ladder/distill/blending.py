"""One target distribution out of two teachers' distributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ladder.distill.choice import chosen
from ladder.distill.probabilities import log_probabilities

NOTHING = float("-inf")
"""log 0."""


def log_mixture(log_p_NV: Tensor, log_q_NV: Tensor, weight: Tensor) -> Tensor:
    """log(w p + (1 - w) q), [N, V], by log-sum-exp. ``weight`` is 0 to 1 and broadcasts against [N, V].

    The larger of log p and log q is taken out before the weights are added, so equal distributions give themselves
    back exactly. Columns where both are 0 stay 0. Gradients are finite for 0 < w < 1.
    """
    swap_NV = log_q_NV > log_p_NV
    log_w, log_rest = weight.log(), torch.log1p(-weight)
    high_NV, low_NV = log_q_NV.where(swap_NV, log_p_NV), log_p_NV.where(swap_NV, log_q_NV)
    high_weight, low_weight = log_rest.where(swap_NV, log_w), log_w.where(swap_NV, log_rest)
    gap_NV = (low_NV - high_NV).where(high_NV > NOTHING, 0.0)
    return high_NV + torch.logaddexp(high_weight, low_weight + gap_NV)


def log_linear_pool(log_p_NV: Tensor, log_q_NV: Tensor, weight: Tensor) -> Tensor:
    """log of p^w q^(1-w), normalised, [N, V]: the blend of logits. ``weight`` is 0 to 1 and broadcasts against [N, V].

    The difference to the heavier of the two is what is added to it, and sums are compared with the sums of p and of q
    in the same arithmetic, so equal distributions, and one that has all the weight, give themselves back exactly: how
    a processor rounds a sum over V cancels.

    Not defined (NaN) where w is inside 0..1 and the two have no token in common. No gradient is needed here.
    """
    p_is_heavy, light = weight >= 0.5, torch.minimum(weight, 1 - weight)
    heavy_NV, light_NV = log_p_NV.where(p_is_heavy, log_q_NV), log_q_NV.where(p_is_heavy, log_p_NV)
    step_NV = (light * (light_NV - heavy_NV)).where((light > 0) & (heavy_NV > NOTHING), 0.0)
    pooled_NV = heavy_NV + step_NV
    sum_N1, sum_p_N1, sum_q_N1 = (z_NV.logsumexp(-1, keepdim=True) for z_NV in (pooled_NV, log_p_NV, log_q_NV))
    return pooled_NV - (sum_N1 - sum_q_N1.lerp(sum_p_N1, weight))


POOLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "probabilities": log_mixture,
    "logits": log_linear_pool,
}
"""The words of ``training_params.pooling``. The two are different targets."""


@torch.no_grad()
def log_target(teacher1_NV: Tensor, teacher2_NV: Tensor, weight1_N: Tensor, temperature: float, pooling: str) -> Tensor:
    """Log-probabilities of the target at temperature T, [N, V], from two teachers' logits [N, V].

    ``weight1_N`` is teacher 1's share, 0 to 1. A teacher without a share is not looked at: its row may hold anything,
    because the teacher that did not dream a row need not run on it.

    Raises:
        LadderError: no pooling of that name.
    """
    weight_N1 = weight1_N.unsqueeze(-1)
    first_NV = teacher1_NV.where(weight_N1 > 0, teacher2_NV)
    second_NV = teacher2_NV.where(weight_N1 < 1, teacher1_NV)
    log_first_NV, log_second_NV = (log_probabilities(z_NV, temperature) for z_NV in (first_NV, second_NV))
    pool = chosen(POOLS, pooling, "training_params.pooling")
    return pool(log_first_NV, log_second_NV, weight_N1.to(log_first_NV.dtype))
