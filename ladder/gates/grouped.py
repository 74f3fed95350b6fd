"""How sure a difference is where probes stand or fall together, such as those in one wording or about one text."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy.special import stdtrit

from ladder.gates.paired import Interval
from ladder.gates.probes import Probe

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
