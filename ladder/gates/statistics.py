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
from scipy.special import ndtri, stdtrit

from ladder.exam import BINS, Probe, Told

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


def calibration_interval(ours: Sequence[Told], theirs: Sequence[Told], confidence: float, seed: int = 0) -> Interval:
    """Bounds for the difference of two models' calibration errors (``calibration_error``) on the same probes.

    Chance adds to a calibration error, the more the better a model is calibrated: of one without any error 150 answers
    show 0.07. So the upper bound takes chance off the parent's error alone and the lower bound off the child's alone:
    of each bin the square of its mean gap less the variance of that (A. Kumar, P. Liang and T. Ma, "Verified
    uncertainty calibration", 2019). To that comes the standard error of the difference, from a bootstrap that draws
    both models' answers to a probe together (those of a group, too), and one more answer that is wholly wrong.

    Args:
        ours: the child's answers; one or more.
        theirs: the parent's, to the same probes in the same order.
        confidence: of each bound by itself.
        seed: of the draws.
    """
    groups = groups_of([told.probe for told in ours]) or alone(len(ours))
    names, places = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return Interval(-1.0, 1.0)  # One group is one observation.
    sizes, child, parent = np.bincount(places), _gaps(ours, places), _gaps(theirs, places)
    spread = float(_calibration_draws(sizes, child, parent, seed).std())
    reach = float(ndtri(confidence)) * spread + 1 / len(ours)
    low = _less_chance(child) - float(np.abs(parent.sum(0)).sum())
    high = float(np.abs(child.sum(0)).sum()) - _less_chance(parent)
    return Interval(max(-1.0, low / len(ours) - reach), min(1.0, high / len(ours) + reach))


def _gaps(told: Sequence[Told], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """What the confidences of each group exceed its right answers by, in each bin: [groups, bins]."""
    gaps = np.zeros((int(places.max()) + 1, BINS))
    bins = np.array([one.bin for one in told])
    np.add.at(gaps, (places, bins), [one.confidence - one.right for one in told])
    return gaps


def _less_chance(gaps: NDArray[np.float64]) -> float:
    """Sum over the bins of the root of the squared total less the variance of the total; 0 where that is larger."""
    totals, count = gaps.sum(0), len(gaps)
    variance = count / (count - 1) * ((gaps - totals / count) ** 2).sum(0)
    return float(np.sqrt(np.maximum(totals**2 - variance, 0)).sum())


def _calibration_draws(
    sizes: NDArray[np.intp], child: NDArray[np.float64], parent: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """The difference of the two errors in each of ``_DRAWS`` draws of as many groups as there are."""
    draw, count = np.random.default_rng(seed), len(sizes)
    drawn = []
    for _ in range(_DRAWS // 500):  # 500 draws of 10,000 probes are 40 MB.
        times = draw.multinomial(count, np.full(count, 1 / count), size=500).astype(float)
        drawn.append((np.abs(times @ child).sum(1) - np.abs(times @ parent).sum(1)) / (times @ sizes))
    return np.concatenate(drawn)
