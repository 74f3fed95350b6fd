"""How often something may still happen that was seen seldom or never in a sample."""

from __future__ import annotations

from math import exp, fsum, lgamma, log, log1p

from ladder.errors import GateError

CONFIDENCE = 0.95
_HALVINGS = 60
"""Halvings of [0, 1]; after 53 a float holds no more."""


def upper_bound(found: int, n: int) -> float:
    """One-sided 95% upper bound of a rate, 0 to 1: the rate at which ``found`` or fewer of ``n`` come out in 5% of all
    samples (C. Clopper and E. Pearson, "The use of confidence or fiducial limits", Biometrika 1934). With nothing found
    it is 1 - 0.05^(1/n).

    Raises:
        GateError: not 0 <= found <= n, or n is 0.
    """
    if n < 1 or not 0 <= found <= n:
        raise GateError(f"found {found} of {n}, expected 0 to n of a sample of 1 or more", where="upper bound")
    if found == n:
        return 1.0
    if found == 0:
        return float(1 - (1 - CONFIDENCE) ** (1 / n))
    low, high = found / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(found, n, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _tail(found: int, n: int, rate: float) -> float:
    """P(X <= found) of a binomial X of n trials; 0 < rate < 1. Through logarithms, so that no n overflows."""
    return fsum(exp(_log_ways(n, k) + k * log(rate) + (n - k) * log1p(-rate)) for k in range(found + 1))


def _log_ways(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
