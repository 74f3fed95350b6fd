"""How sure a difference between two models is that answered the same probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_DRAWS = 4000

Counted = tuple[tuple[float, int], ...]
"""Differences of one stratum, each with how often it occurs, in order."""


@dataclass(frozen=True)
class Interval:
    """Where the true difference lies, child less parent.

    Args:
        low: it is above this with the confidence.
        high: and below this with the same confidence; between both with less (0.9 where each bound has 0.95).
    """

    low: float
    high: float

    def widened(self, other: Interval) -> Interval:
        """What holds of both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def paired_interval(strata: Sequence[Sequence[float]], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Bounds for the mean over strata of the mean difference in each, by a paired bootstrap.

    Probes are drawn again within their stratum, so a stratum weighs the same however many probes it has. A plain
    bootstrap is too sure where little changed: of twenty probes of which none was lost it says that none can be. So the
    lower bound is drawn from the probes and one more that was lost, the upper one with one more that was gained, spread
    over the strata. For a single stratum of lost answers alone that agrees with the exact bound (C. Clopper and
    E. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934) to within a
    probe.

    Args:
        strata: differences in score, -1 to 1, one sequence for each ancestor; none of them empty.
        confidence: of each bound by itself.
        seed: of the draws.
    """
    # Which probe of a stratum changed plays no part, nor which stratum comes first.
    counted = sorted(tuple(sorted(Counter(differences).items())) for differences in strata)
    return _bounds(tuple(counted), confidence, seed)


@lru_cache(maxsize=4096)
def _bounds(strata: tuple[Counted, ...], confidence: float, seed: int) -> Interval:
    lows, highs = _means(strata, -1.0, seed), _means(strata, 1.0, seed)
    # A bound is a mean that was drawn, never one between two.
    low = np.quantile(lows, 1 - confidence, method="lower")
    high = np.quantile(highs, confidence, method="higher")
    return Interval(float(low), float(high))


def _means(strata: Sequence[Counted], added: float, seed: int) -> NDArray[np.float64]:
    """The statistic in each draw, from the differences and one more of the sign of ``added``."""
    draw, weight = np.random.default_rng(seed), 1 / len(strata)
    means: NDArray[np.float64] = np.mean([_stratum_means(draw, each, added, weight) for each in strata], axis=0)
    return means


def _stratum_means(draw: np.random.Generator, counted: Counted, added: float, weight: float) -> NDArray[np.float64]:
    values, counts = (np.array(column, float) for column in zip(*counted, strict=True))
    size = int(counts.sum())
    weights = np.append(counts, weight) / (size + weight)
    values = np.append(values, added * _largest_change(values))
    drawn: NDArray[np.float64] = draw.multinomial(size, weights, size=_DRAWS) @ values
    return drawn / size


def _largest_change(values: NDArray[np.float64]) -> float:
    """What a probe may change by: an answer is right or wrong, a likelihood as much as any of them did."""
    answered = np.isin(values, (-1.0, 0.0, 1.0)).all()
    return 1.0 if answered else float(np.abs(values).max())
