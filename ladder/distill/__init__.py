"""Pure tensor mathematics of distillation: torch and ladder.errors only.

Suffixes name the axes: N trained tokens, V columns of the vocabulary, S sources.
"""

from __future__ import annotations

from ladder.distill.divergence import generalized_jsd, jensen_shannon, kl
from ladder.distill.evidence import (
    Evidence,
    average_over_rows,
    entropy,
    gather_evidence,
    normalized_entropy_confidence,
    top1,
)
from ladder.distill.objective import Objective, TokenLosses, token_losses
from ladder.distill.reduction import reduction_weights, route_shares, source_counts
from ladder.distill.routing import (
    ROUTERS,
    Route,
    Routing,
    RoutingSettings,
    route,
    route_agreement,
    route_gold,
    route_surprise,
)
from ladder.distill.vocabulary import IGNORE, Columns, columns

__all__ = [
    "IGNORE",
    "ROUTERS",
    "Columns",
    "Evidence",
    "Objective",
    "Route",
    "Routing",
    "RoutingSettings",
    "TokenLosses",
    "average_over_rows",
    "columns",
    "entropy",
    "gather_evidence",
    "generalized_jsd",
    "jensen_shannon",
    "kl",
    "normalized_entropy_confidence",
    "reduction_weights",
    "route",
    "route_agreement",
    "route_gold",
    "route_shares",
    "route_surprise",
    "source_counts",
    "token_losses",
    "top1",
]
