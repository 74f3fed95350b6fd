"""What the routes of a batch look like, for the progress line and the history."""

from __future__ import annotations

import torch
from torch import Tensor

from ladder.distill.routing import Route


def route_shares(route_N: Tensor) -> dict[str, int]:
    """Tokens on each route, under its name in small letters: ``{"skip": 3, "gold": 12, ...}``. Every route is named.

    Counts, so that they add up over micro-batches and ranks.
    """
    counts_R = torch.bincount(route_N.long(), minlength=len(Route)).tolist()
    return {kind.name.lower(): counts_R[kind] for kind in Route}
