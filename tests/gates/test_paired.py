"""Bounds of a paired difference: against exact binomial bounds, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from ladder.gates.statistics import WHOLE, Reach, paired_interval
from ladder.laws.law import upper_bound


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


def test_one_more_reaches_as_far_as_it_could_and_not_as_the_others_did() -> None:
    """Likelihoods of 0.3 at most can lose 0.3 each, however little those that are seen moved."""
    differences = [0.01, 0.012, 0.008, 0.011, 0.009] * 10
    found = paired_interval([differences], reaches=[Reach(0.3, 0.9)])
    assert found.low == pytest.approx(0.01 - 3 * 0.31 / 50, abs=1e-3)
    assert found.high == pytest.approx(0.01 + 3 * 0.89 / 50, abs=1e-3)
    assert paired_interval([differences]) == paired_interval([differences], reaches=[WHOLE])
    assert paired_interval([differences]).low == pytest.approx(0.01 - 3 * 1.01 / 50, abs=1e-3)


def test_a_reach_belongs_to_its_stratum() -> None:
    still, small = [0.0] * 40, [0.001] * 40
    found = paired_interval([still, small], reaches=[WHOLE, Reach(0.1, 0.1)])
    assert found == paired_interval([small, still], reaches=[Reach(0.1, 0.1), WHOLE])
    assert found.low > paired_interval([still, small]).low


@pytest.mark.parametrize(("lose", "gain"), [(0.05, 0.05), (0.1, 0.02), (0.02, 0.3)])
def test_a_bound_holds_as_often_as_it_says(lose: float, gain: float) -> None:
    """True differences lie above the lower bound in at least 95% of 400 exams, but for the luck of 400 draws."""
    draw = np.random.default_rng(7)
    exams = draw.choice([-1.0, 1.0, 0.0], p=[lose, gain, 1 - lose - gain], size=(400, 80))
    held = [paired_interval([exam.tolist()]).low <= gain - lose for exam in exams]
    assert np.mean(held) >= 0.93
