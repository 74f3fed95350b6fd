"""How sure one teacher is of its next token, from its log-probabilities at temperature 1."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ladder.distill.probabilities import expectation
from ladder.errors import LadderError


def entropy(log_p_NV: Tensor) -> Tensor:
    """Shannon entropy H(p) in nats, [N], 0 to ln V. 0 ln 0 counts as 0."""
    return -expectation(log_p_NV, log_p_NV)


def top1(log_p_NV: Tensor) -> Tensor:
    """Probability of the likeliest token, [N], 1/V to 1."""
    return log_p_NV.amax(-1).exp()


def normalized_entropy_confidence(log_p_NV: Tensor) -> Tensor:
    """1 - H(p) / ln V, [N], 0 (uniform) to 1 (certain). V is the number of columns given; rounding is clamped away.

    Raises:
        LadderError: fewer than two columns.
    """
    return normalized(entropy(log_p_NV), log_p_NV.shape[-1])


def normalized(entropy_N: Tensor, size: int) -> Tensor:
    """1 - H / ln V of entropies in nats, [N], 0 to 1.

    Raises:
        LadderError: fewer than two columns.
    """
    if size < 2:
        raise LadderError(f"a distribution over {size} token has no normalised entropy, expected at least 2")
    return (1 - entropy_N / math.log(size)).clamp(0.0, 1.0)


CONFIDENCES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "top1": lambda top1_N, entropy_N, size: top1_N,
    "entropy": lambda top1_N, entropy_N, size: normalized(entropy_N, size),
}
"""The words of ``training_params.confidence``: (top-1 probability, entropy in nats, columns) -> [N]."""
