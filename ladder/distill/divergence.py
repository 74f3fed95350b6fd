"""Divergences between two distributions over the vocabulary, per token, in nats, from log-probabilities [N, V]."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ladder.distill.probabilities import expectation, log_mixture

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


def jensen_shannon(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """Jensen-Shannon divergence, [N], 0 to ln 2 (rounding is clamped away). A statistic, not a loss."""
    return generalized_jsd(log_p_NV, log_q_NV, 0.5).clamp(0.0, LN2)


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
