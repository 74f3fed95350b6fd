"""Logits to log-probabilities, expectations under them, and one target distribution out of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ladder.errors import LadderError

T = TypeVar("T")


def chosen(table: Mapping[str, T], word: str, where: str) -> T:
    """The entry of ``table`` under ``word``.

    Raises:
        LadderError: the table has no such word.
    """
    if word not in table:
        raise LadderError(f"{word!r} is not known, expected one of {', '.join(table)}", where=where)
    return table[word]


def upcast(logits: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 stay as they are.

    A softmax in bfloat16 over 248k columns reads a KL of 0.025 between identical logits.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_probabilities(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(z / T), [N, V], in at least float32. A logit of -inf keeps probability 0."""
    return torch.log_softmax(upcast(logits_NV) / temperature, dim=-1)


def expectation(log_p_NV: Tensor, value_NV: Tensor) -> Tensor:
    """Sum over V of p * value, [N], where a p that is 0 (or underflows) contributes 0 whatever its value is.

    The value is masked before the product: masking the product would leave 0 * inf = NaN in the gradient of p.
    """
    p_NV = log_p_NV.exp()
    return (p_NV * value_NV.where(p_NV > 0, 0.0)).sum(-1)


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
