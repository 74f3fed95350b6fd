"""Pure tensor mathematics of distillation: torch and ladder.errors only.

Suffixes name the axes: N trained tokens, V columns of the vocabulary, S sources.
"""

from ladder.distill.device import fast_float32, full_float32, onto, release
from ladder.distill.divergence import generalized_jsd, jensen_shannon, js_bounds, kl, log_probabilities
from ladder.distill.evidence import (
    Evidence,
    average_over_rows,
    entropy,
    gather_evidence,
    normalized_entropy_confidence,
    row_means,
    top1,
)
from ladder.distill.fused import Chunking, FusedLoss, FusedResult, buffers, split, teachers_evidence
from ladder.distill.kernels import has_compiler, pays_to_compile
from ladder.distill.objective import (
    Forecast,
    Objective,
    TokenLosses,
    forecast,
    reduction_weights,
    route_shares,
    source_counts,
    taught,
    token_losses,
    unknown,
)
from ladder.distill.routing import (
    ROUTERS,
    Route,
    Routing,
    RoutingSettings,
    route,
)
from ladder.distill.student import Block, Student, StudentHead, StudentLogits
from ladder.distill.temperature import Spread, VarianceTemperature
from ladder.distill.tokens import Ahead, Known, Prior, Source, Teachers, Tokens, Told, answering, grouped
from ladder.distill.vocabulary import IGNORE, Columns, columns

__all__ = [
    "IGNORE",
    "ROUTERS",
    "Ahead",
    "Block",
    "Chunking",
    "Columns",
    "Evidence",
    "Forecast",
    "FusedLoss",
    "FusedResult",
    "Known",
    "Objective",
    "Prior",
    "Route",
    "Routing",
    "RoutingSettings",
    "Source",
    "Spread",
    "Student",
    "StudentHead",
    "StudentLogits",
    "Teachers",
    "TokenLosses",
    "Tokens",
    "Told",
    "VarianceTemperature",
    "answering",
    "average_over_rows",
    "buffers",
    "columns",
    "entropy",
    "fast_float32",
    "forecast",
    "full_float32",
    "gather_evidence",
    "generalized_jsd",
    "grouped",
    "has_compiler",
    "jensen_shannon",
    "js_bounds",
    "kl",
    "log_probabilities",
    "normalized_entropy_confidence",
    "onto",
    "pays_to_compile",
    "reduction_weights",
    "release",
    "route",
    "route_shares",
    "row_means",
    "source_counts",
    "split",
    "taught",
    "teachers_evidence",
    "token_losses",
    "top1",
    "unknown",
]
