"""How sure a difference between two models is that answered the same probes, one by one or in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ladder.exam import Probe

_DRAWS = 4000

Counted = tuple[tuple[float, int], ...]
"""Differences of one stratum, each with how often it occurs, in order."""


class Reach(NamedTuple):
    """By how much the score of one more probe could fall and rise, each 0 to 1. Known before anything changed."""

    fall: float
    rise: float


WHOLE = Reach(1.0, 1.0)
"""That of an answer: right or wrong."""


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
        """The smallest interval that contains both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def paired_interval(
    strata: Sequence[Sequence[float]],
    confidence: float = 0.95,
    seed: int = 0,
    reaches: Sequence[Reach] | None = None,
) -> Interval:
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
        reaches: of each stratum, what the probe that is added may have lost or gained; ``WHOLE`` where left out. What
            did change says nothing of it: where a rare loss is a whole answer, the few that are seen are small.
    """
    # Which probe of a stratum changed plays no part, nor which stratum comes first.
    counted = (tuple(sorted(Counter(differences).items())) for differences in strata)
    paired = sorted(zip(counted, reaches or [WHOLE] * len(strata), strict=True))
    return _bounds(tuple(paired), confidence, seed)


@lru_cache(maxsize=4096)
def _bounds(strata: tuple[tuple[Counted, Reach], ...], confidence: float, seed: int) -> Interval:
    lows = _means([(counted, -reach.fall) for counted, reach in strata], seed)
    highs = _means([(counted, reach.rise) for counted, reach in strata], seed)
    # A bound is a mean that was drawn, never one between two.
    low = np.quantile(lows, 1 - confidence, method="lower")
    high = np.quantile(highs, confidence, method="higher")
    return Interval(float(low), float(high))


def _means(strata: Sequence[tuple[Counted, float]], seed: int) -> NDArray[np.float64]:
    """The statistic in each draw, from the differences of each stratum and one more."""
    draw, weight = np.random.default_rng(seed), 1 / len(strata)
    means: NDArray[np.float64] = np.mean([_stratum_means(draw, *each, weight) for each in strata], axis=0)
    return means


def _stratum_means(draw: np.random.Generator, counted: Counted, added: float, weight: float) -> NDArray[np.float64]:
    values, counts = (np.array(column, float) for column in zip(*counted, strict=True))
    size = int(counts.sum())
    weights = np.append(counts, weight) / (size + weight)
    drawn: NDArray[np.float64] = draw.multinomial(size, weights, size=_DRAWS) @ np.append(values, added)
    return drawn / size


Groups = tuple[str, ...]
"""The group of each probe, in their order."""


def groups_of(probes: Sequence[Probe]) -> Groups:
    """The group of each probe; one that names none is a group by itself. Empty where none of them names one."""
    if not any(probe.group for probe in probes):
        return ()
    return tuple(probe.group or own for probe, own in zip(probes, alone(len(probes)), strict=True))


def alone(count: int) -> Groups:
    """As many groups as probes; no file can name one of these."""
    return tuple(f"\0{place}" for place in range(count))


def grouped_interval(strata: Sequence[tuple[Sequence[float], Groups]], confidence: float) -> Interval:
    """Bounds for the mean over strata of the mean difference in each, by standard errors clustered in groups.

    The variance of a stratum's mean is G / (G - 1) times the sum of the squared totals of its G groups, each less its
    expectation, over the squared number of probes; the quantile is Student's with as many degrees of freedom as there
    are groups beyond the first of each stratum. C. Cameron and D. Miller, "A practitioner's guide to cluster-robust
    inference", 2015; for exams of language models E. Miller, "Adding error bars to evals", 2024.

    Args:
        strata: differences in score, -1 to 1, and the groups of their probes. None of them empty.
        confidence: of each bound by itself.
    """
    if any(len(set(groups)) < 2 for _, groups in strata):
        return Interval(-1.0, 1.0)  # One group is one observation.
    mean = float(np.mean([np.mean(differences) for differences, _ in strata]))
    variance = sum(_variance(*stratum) for stratum in strata) / len(strata) ** 2
    degrees = sum(len(set(groups)) - 1 for _, groups in strata)
    reach = float(stdtrit(degrees, confidence)) * sqrt(variance)
    return Interval(max(-1.0, mean - reach), min(1.0, mean + reach))


def _variance(differences: Sequence[float], groups: Groups) -> float:
    """Of a stratum's mean."""
    values, (names, places) = np.asarray(differences), np.unique(groups, return_inverse=True)
    totals = np.bincount(places, values - values.mean())
    count = len(names)
    return float(count / (count - 1) * (totals**2).sum() / len(values) ** 2)
