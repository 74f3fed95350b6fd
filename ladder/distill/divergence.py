"""Divergences between two distributions over the vocabulary, per token, in nats, from log-probabilities [N, V].

All of them stay in log space and can be differentiated in either argument. Where a column is 0 in both
distributions it contributes nothing, neither to the value nor to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ladder.distill.blending import log_mixture
from ladder.distill.probabilities import expectation

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
