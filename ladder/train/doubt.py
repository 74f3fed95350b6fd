"""How inexact the routes of a run with truncated teachers are: what top-k hides may turn a decision about agreement."""

from __future__ import annotations

import torch
from torch import Tensor

from ladder.distill import IGNORE, RoutingSettings
from ladder.distill.chunks import split
from ladder.distill.evidence import row_means
from ladder.distill.source import Teachers
from ladder.distill.tokens import Tokens
from ladder.distill.truncation import js_bounds
from ladder.signals.source import TopKSource

_ROWS = 1024
"""Tokens whose bounds are computed at a time, in float64 [n, K]."""


def js_doubt(tokens: Tokens, teachers: Teachers, settings: RoutingSettings) -> dict[str, Tensor]:
    """How many tokens are routed by the Jensen-Shannon divergence of two truncated teachers (``js_routed``), and of
    how many the true divergence may lie on the other side of the threshold (``js_uncertain``).

    Empty where the divergence is exact or no route depends on it. With granularity ``sequence`` the bounds are
    averaged over the rows, as the divergence is.
    """
    first, second = teachers
    if not (isinstance(first, TopKSource) and isinstance(second, TopKSource)) or settings.routing == "gold":
        return {}
    routed_N = _by_divergence(tokens, settings) & first.speaks_N & second.speaks_N
    rows_n = routed_N.nonzero().squeeze(-1)
    lower_n, upper_n = _bounds(first, second, rows_n)
    if settings.granularity == "sequence":
        lower_n, upper_n = row_means((lower_n, upper_n), tokens.row_N[rows_n])
    doubtful_n = (lower_n < settings.js_threshold) & (upper_n >= settings.js_threshold)
    return {"js_routed": routed_N.sum(), "js_uncertain": doubtful_n.sum()}


def _by_divergence(tokens: Tokens, settings: RoutingSettings) -> Tensor:
    """Tokens whose route reads the divergence, bool [N]: none of a dream, with surprise routing none with a label."""
    awake_N = tokens.kept_N & (tokens.dreamer_N == 0)
    return awake_N & (tokens.labels_N == IGNORE) if settings.routing == "surprise" else awake_N


def _bounds(first: TopKSource, second: TopKSource, rows_n: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest divergence of these tokens, float64 [n]."""
    nothing = (torch.zeros(0, dtype=torch.float64, device=rows_n.device),) * 2
    parts = [js_bounds(*first.likeliest(part), *second.likeliest(part)) for part in split(rows_n, _ROWS)]
    lower_n, upper_n = (torch.cat(each) for each in zip(*(parts or [nothing]), strict=True))
    return lower_n, upper_n
