"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal


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
