"""Standing beside likelihoods: what one more probe could lose is decided before anything is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ladder.gates.decision import decide
from ladder.gates.measurements import Measurements, Scores, bounds_of, reach_of
from ladder.gates.statistics import WHOLE, Reach
from ladder.manifest.schema import Gates

INTERVAL = Gates.model_validate({"recall": {"evidence": "interval"}})
Exam = tuple[dict[str, Scores], dict[str, Scores]]
"""Scores of child and parent by ancestor."""


def test_an_answer_can_be_lost_wholly_and_a_likelihood_as_far_as_there_was_any() -> None:
    assert reach_of((1.0, 1.0), (1.0, 1.0)) == reach_of((0.0,), (1.0,)) == reach_of((0.3, 1.0), (0.3, 1.0)) == WHOLE
    assert reach_of((0.1, 0.2), (0.3, 0.25)) == Reach(0.3, 0.75)
    assert reach_of((0.0, 1.0), (0.25, 0.5)) == Reach(0.5, 0.75)
    assert reach_of((0.25,), (0.0,)) == Reach(0.0, 1.0)


@pytest.mark.parametrize("written", [3, 5, 10, 20, 40])
def test_one_likelihood_leaves_the_bounds_of_the_others(written: int) -> None:
    """But for what one probe more is worth."""
    before: Scores = (1.0,) * written
    alone, beside = (
        bounds_of({"A": before}, {"A": before}, 0.95),
        bounds_of({"A": (*before, 0.299)}, {"A": (*before, 0.3)}, 0.95),
    )
    assert alone and beside
    assert beside.low == pytest.approx(alone.low * written / (written + 1), abs=1.2 / written)
    assert beside.low < -0.07 and beside.high > 0.07


def forgetful(written: int, seed: int) -> Scores:
    """A tenth of what was known is lost."""
    return tuple((np.random.default_rng([seed, written]).random(written) >= 0.1).astype(float).tolist())


def one_beside(written: int, seed: int) -> Exam:
    return {"A": (*forgetful(written, seed), 0.299)}, {"A": (*(1.0,) * written, 0.3)}


def one_of_another(written: int, seed: int) -> Exam:
    return {"A": forgetful(written, seed), "B": (0.299,)}, {"A": (1.0,) * written, "B": (0.3,)}


def half_of_them(written: int, seed: int) -> Exam:
    """The likelihoods move a little, all of them."""
    before = np.random.default_rng([seed, 1]).uniform(0.2, 0.6, written)
    after = tuple((before * np.exp(np.random.default_rng([seed, 2]).normal(0, 0.01, written))).tolist())
    kept = tuple((np.random.default_rng([seed, 3]).random(written) >= 0.2).astype(float).tolist())
    return {"A": (*kept, *after)}, {"A": (*(1.0,) * written, *before.tolist())}


def likelihoods_alone(written: int, seed: int) -> Exam:
    """A quarter of the texts is forgotten."""
    draw = np.random.default_rng([seed, written])
    before = draw.uniform(0.2, 0.6, written)
    after = before * np.where(draw.random(written) < 0.25, 0.02, np.exp(draw.normal(0, 0.01, written)))
    return {"A": tuple(after.tolist())}, {"A": tuple(before.tolist())}


@pytest.mark.parametrize(
    ("drawn", "children"), [(one_beside, 450), (one_of_another, 450), (half_of_them, 30), (likelihoods_alone, 30)]
)
@pytest.mark.parametrize("written", [3, 5, 10, 20, 40])
def test_who_truly_lost_a_tenth_does_not_pass(drawn: Callable[[int, int], Exam], children: int, written: int) -> None:
    """By interval; 5% of them at most."""
    exams = [drawn(written, seed) for seed in range(children)]
    passed = [
        decide(INTERVAL, Measurements(ours), Measurements(theirs), []).results[0].passed for ours, theirs in exams
    ]
    assert sum(passed) <= 0.05 * children


def test_a_lucky_answer_beside_a_likelihood_is_no_gain() -> None:
    child, parent = Measurements(generalize=(1.0, 0.0, 0.0, 0.301)), Measurements(generalize=(0.0, 0.0, 0.0, 0.3))
    found = decide(Gates(), child, parent, []).results[1]
    assert not found.passed and found.low is not None and found.low < -0.2


def test_a_gain_of_every_likelihood_is_one() -> None:
    before = tuple(np.random.default_rng(0).uniform(0.2, 0.4, 40).tolist())
    child = Measurements(generalize=tuple(score + 0.05 for score in before))
    assert decide(Gates(), child, Measurements(generalize=before), []).results[1].passed


def test_answers_alone_are_bounded_as_before() -> None:
    found = bounds_of({"A": (1.0,) * 37 + (0.0,) * 3}, {"A": (1.0,) * 38 + (0.0,) * 2}, 0.95)
    assert found and (found.low, found.high) == (-0.1, 0.05)
