"""Logits to log-probabilities, and expectations under them. Nothing leaves log space before it must."""

from __future__ import annotations

import torch
from torch import Tensor


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
