"""The upper bound of a rate, against exact binomial tails."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from ladder.errors import GateError
from ladder.laws.law import upper_bound


def tail(found: int, n: int, rate: float) -> float:
    p = Fraction(rate)
    return float(sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(found + 1)))


@pytest.mark.parametrize(("found", "n"), [(0, 1), (0, 64), (1, 10), (2, 20), (5, 100), (63, 64), (1, 2), (9, 300)])
def test_at_the_bound_so_few_come_out_in_one_sample_of_twenty(found, n):
    assert tail(found, n, upper_bound(found, n)) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("n", [1, 64, 1000])
def test_nothing_found_has_a_closed_form(n):
    assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-12)


def test_it_is_what_scipy_finds_by_searching():
    """As near as that search comes; the figures that stored reports hold have more digits."""
    from scipy.stats import binomtest

    for n in (1, 2, 3, 7, 20, 64, 300, 1000, 100_000):
        for found in sorted({0, 1, 2, n // 7, n // 2, n - 1, n} & set(range(n + 1))):
            searched = binomtest(found, n, alternative="less").proportion_ci(0.95, method="exact").high
            assert upper_bound(found, n) == pytest.approx(searched, abs=4e-12), (found, n)


@pytest.mark.parametrize(
    ("found", "n", "stored"),
    [(0, 64, 0.04572970233076244), (2, 48, 0.12541440447448027), (5, 1_000_000, 1.0513005929398719e-05)],
)
def test_a_report_that_is_stored_is_found_again_to_the_last_digits(found, n, stored):
    assert upper_bound(found, n) == pytest.approx(stored, rel=1e-13)


def test_everything_found_bounds_nothing():
    assert upper_bound(7, 7) == 1.0


def test_large_samples_do_not_overflow():
    # Poisson: at a mean of 7.7537, 3 or fewer come out with probability 0.05.
    assert upper_bound(3, 1_000_000) == pytest.approx(7.7537e-6, rel=1e-4)


@pytest.mark.parametrize(("found", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_sample_is_refused(found, n):
    with pytest.raises(GateError, match="expected 0 to n"):
        upper_bound(found, n)
