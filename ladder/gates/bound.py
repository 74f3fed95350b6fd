"""How often something may still happen that was seen seldom or never in a sample."""

from __future__ import annotations

from ladder.errors import GateError

CONFIDENCE = 0.95


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
    # Here, because it takes a second to import.
    from scipy.stats import beta

    return float(beta.ppf(CONFIDENCE, found + 1, n - found))
