"""The optimiser over the trainable parameters, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from ladder.manifest.schema import TrainingParams


def lr_factor(step: int, steps: int, warmup: float, kind: Literal["cosine", "linear", "constant"]) -> float:
    """Factor in (0, 1] on the peak learning rate at ``step`` of ``steps``.

    Rises linearly over the first ``warmup`` share of the steps, then falls to zero along a half cosine or a line.
    """
    rise = round(steps * warmup)
    if step < rise:
        return (step + 1) / (rise + 1)
    if kind == "constant":
        return 1.0
    progress = (step - rise) / max(1, steps - rise)
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def adamw(parameters: Mapping[str, nn.Parameter], params: TrainingParams) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter) at the manifest's peak learning rate, each parameter in one pass over memory."""
    matrices = [value for value in parameters.values() if value.ndim >= 2]
    vectors = [value for value in parameters.values() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": params.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=params.lr, fused=True)
