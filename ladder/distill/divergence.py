"""Distributions over the vocabulary, per token: log-probabilities [N, V] of logits, expectations under them, one target
out of several, and divergences in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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


def log_probabilities(logits_NV: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """log softmax(z / T), [N, V], in at least float32; T is a number, or one for each token [N, 1]. A logit of -inf
    keeps probability 0."""
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
def log_target(
    teachers: Sequence[Tensor | None], weights_KN: Tensor, temperature: Tensor | float, pooling: str
) -> Tensor:
    """Log-probabilities of the target at temperature T, [N, V], from the logits [N, V] of K teachers.

    A teacher without a weight is not looked at: it may be None, and its row may hold anything, because the teachers
    that did not dream a row need not run on it.

    Args:
        weights_KN: of each teacher, at least 0. A row's sum to 1, or are all 0: it then means nothing, and is finite.

    Raises:
        LadderError: no pooling of that name.
    """
    there = [(logits_NV, weights_KN[k]) for k, logits_NV in enumerate(teachers) if logits_NV is not None]
    # Rows of a teacher without a weight give way to those of the first one that has a weight.
    stand_in_NV, heard_N = torch.zeros_like(there[0][0]), torch.zeros_like(weights_KN[0], dtype=torch.bool)
    for logits_NV, weight_N in there:
        takes_N = (weight_N > 0) & ~heard_N
        stand_in_NV, heard_N = logits_NV.where(takes_N.unsqueeze(-1), stand_in_NV), heard_N | takes_N
    logs = [
        log_probabilities(logits_NV.where(weight_N.unsqueeze(-1) > 0, stand_in_NV), temperature)
        for logits_NV, weight_N in there
    ]
    return log_pool(logs, [weight_N.to(logs[0].dtype) for _, weight_N in there], pooling)


def log_pool(logs: Sequence[Tensor], weights: Sequence[Tensor], pooling: str) -> Tensor:
    """Log of one distribution out of the logs [N, V] of several, in the order given: both pools of many are pools of
    two, of the pool so far and the next one.

    Args:
        weights: [N] each, summing to 1.

    Raises:
        LadderError: no pooling of that name.
    """
    pool = chosen(POOLS, pooling, "training_params.pooling")
    pooled_NV, total_N = logs[0], weights[0]
    for number, log_p_NV in enumerate(logs[1:], 1):
        last, before_N = number == len(logs) - 1, total_N
        total_N = total_N + weights[number]
        # The sum of all is 1, and taken as such, because rounding would make a share of 1 a little less.
        share_N = before_N if last else (before_N / total_N).where(total_N > 0, 1.0)
        pooled_NV = pool(pooled_NV, log_p_NV, share_N.unsqueeze(-1))
    return pooled_NV


LN2 = math.log(2)


def kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(p || q), [N], at least 0 up to rounding. Infinite where q is 0 and p is not."""
    return expectation(log_p_NV, log_p_NV - log_q_NV)


def reverse_kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(q || p), [N]."""
    return kl(log_q_NV, log_p_NV)


def generalized_jsd(log_p_NV: Tensor, log_q_NV: Tensor, weight: float) -> Tensor:
    """w KL(p || m) + (1 - w) KL(q || m) with m = w p + (1 - w) q, [N], for 0 < w < 1.

    The generalised Jensen-Shannon divergence of Agarwal et al., "On-Policy Distillation of Language Models: Learning
    from Self-Generated Mistakes" (ICLR 2024, arXiv 2306.13649), section 2; p is the target and q the student. Always
    finite: at most w ln(1/w) + (1 - w) ln(1/(1 - w)).
    """
    log_m_NV = log_mixture(log_p_NV, log_q_NV, log_p_NV.new_tensor(weight))
    return weight * kl(log_p_NV, log_m_NV) + (1 - weight) * kl(log_q_NV, log_m_NV)


def jensen_shannon(*logs: Tensor) -> Tensor:
    """Jensen-Shannon divergence of K distributions, [N], 0 to ln K (rounding is clamped away): the mean of KL(p_k ||
    m), where m is the mean of all (Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on
    Information Theory 37, 1991). A statistic, not a loss.
    """
    if len(logs) == 2:
        return generalized_jsd(logs[0], logs[1], 0.5).clamp(0.0, LN2)
    equal = [torch.full_like(logs[0][..., 0], 1 / len(logs)) for _ in logs]
    log_mean_NV = log_pool(logs, equal, "probabilities")
    total_N = sum((kl(log_p_NV, log_mean_NV) for log_p_NV in logs), torch.zeros_like(equal[0]))
    return (total_N / len(logs)).clamp(0.0, math.log(len(logs)))


DIRECTIONS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward": lambda log_target_NV, log_student_NV, _: kl(log_target_NV, log_student_NV),
    "reverse": lambda log_target_NV, log_student_NV, _: reverse_kl(log_target_NV, log_student_NV),
    "jsd": generalized_jsd,
}
"""The words of ``training_params.direction``: (log target, log student, jsd_weight) -> [N]."""


@torch.no_grad()
def js_bounds(ids1_nK: Tensor, log_p1_nK: Tensor, ids2_nL: Tensor, log_p2_nL: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest Jensen-Shannon divergence, float64 [n] in nats, 0 to ln 2.

    The gap is m H(share) and at most m ln 2, where m is the mean mass of the two teachers in the merged cell and share
    is teacher 1's part of it: nothing when the tokens known of both carry all mass.

    Args:
        ids1_nK: token ids, distinct within a row, in any order.
        log_p1_nK: their log-probabilities in the full distribution (not renormalised), at the temperature of the bound.
    """
    p_nK = log_p1_nK.double().exp()
    q_nK = _looked_up(ids1_nK, ids2_nL, log_p2_nL)
    common_nK = q_nK >= 0
    p_nK, q_nK = p_nK.where(common_nK, 0.0), q_nK.where(common_nK, 0.0)
    shared_n = _contribution(p_nK, q_nK).sum(-1)
    p_rest_n, q_rest_n = ((1 - mass_nK.sum(-1)).clamp(0.0, 1.0) for mass_nK in (p_nK, q_nK))
    lower_n = shared_n + _contribution(p_rest_n, q_rest_n)
    upper_n = shared_n + LN2 * (p_rest_n + q_rest_n) / 2
    return lower_n.clamp(0.0, LN2), upper_n.clamp(0.0, LN2)


def js_deviation(js_n: Tensor, lower_n: Tensor, upper_n: Tensor) -> Tensor:
    """How far the true divergence can lie from a computed one, [n] in nats, for bounds of :func:`js_bounds`."""
    return torch.maximum(upper_n - js_n, js_n - lower_n).clamp_min(0.0)


def _contribution(p: Tensor, q: Tensor) -> Tensor:
    """1/2 p ln(p/m) + 1/2 q ln(q/m) with m = (p + q) / 2, element by element; 0 ln 0 counts as 0."""
    mean = (p + q) / 2
    return (torch.special.xlogy(p, p) + torch.special.xlogy(q, q)) / 2 - torch.special.xlogy(mean, mean)


def _looked_up(ids_nK: Tensor, among_nL: Tensor, log_q_nL: Tensor) -> Tensor:
    """Probability of each id among those of the other row, float64 [n, K]; -1 where it is not there."""
    sorted_nL, order_nL = among_nL.long().sort(-1)
    ids_nK = ids_nK.long().contiguous()
    place_nK = torch.searchsorted(sorted_nL, ids_nK).clamp_max(among_nL.shape[-1] - 1)
    q_nK = log_q_nL.double().exp().gather(-1, order_nL.gather(-1, place_nK))
    return q_nK.where(sorted_nL.gather(-1, place_nK) == ids_nK, -1.0)
