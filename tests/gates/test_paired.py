"""Bounds of a paired difference: against exact binomial bounds, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from ladder.gates.bound import upper_bound
from ladder.gates.paired import paired_interval


@pytest.mark.parametrize(("lost", "n"), [(0, 40), (0, 100), (2, 100), (5, 100), (10, 60), (30, 200)])
def test_losses_alone_are_bounded_as_a_binomial_is(lost: int, n: int) -> None:
    """To within one probe and a half, on the careful side or the other."""
    differences = [-1.0] * lost + [0.0] * (n - lost)
    assert -paired_interval([differences]).low * n == pytest.approx(upper_bound(lost, n) * n, abs=1.5)


def test_gains_are_losses_the_other_way_round() -> None:
    found = paired_interval([[1.0] * 8 + [-1.0] * 2 + [0.0] * 30])
    mirror = paired_interval([[-1.0] * 8 + [1.0] * 2 + [0.0] * 30])
    assert found.low == pytest.approx(-mirror.high, abs=0.026)
    assert found.high == pytest.approx(-mirror.low, abs=0.026)


def test_equal_strata_weigh_the_same_whatever_their_size() -> None:
    """200 probes without a change do not hide what happened to 20."""
    found = paired_interval([[0.0] * 200, [-1.0] * 10 + [0.0] * 10])
    assert -0.37 < found.low < -0.3 and -0.2 < found.high < -0.1


def test_more_confidence_is_wider_and_the_same_draws_give_the_same_bounds() -> None:
    differences = [[-1.0] * 3 + [1.0] * 5 + [0.0] * 40]
    narrow, wide = paired_interval(differences, 0.8), paired_interval(differences, 0.99)
    assert wide.low < narrow.low < 2 / 48 < narrow.high < wide.high
    assert paired_interval(differences, 0.8) == narrow


def test_likelihoods_change_by_as_much_as_they_do() -> None:
    """One more loss is one of their size, not of a whole answer."""
    found = paired_interval([[0.01, 0.012, 0.008, 0.011, 0.009] * 10])
    assert 0.005 < found.low < 0.01 < found.high < 0.012


@pytest.mark.parametrize(("lose", "gain"), [(0.05, 0.05), (0.1, 0.02), (0.02, 0.3)])
def test_a_bound_holds_as_often_as_it_says(lose: float, gain: float) -> None:
    """True differences lie above the lower bound in at least 95% of 400 exams, but for the luck of 400 draws."""
    draw = np.random.default_rng(7)
    exams = draw.choice([-1.0, 1.0, 0.0], p=[lose, gain, 1 - lose - gain], size=(400, 80))
    held = [paired_interval([exam.tolist()]).low <= gain - lose for exam in exams]
    assert np.mean(held) >= 0.93
