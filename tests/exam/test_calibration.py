"""Calibration and collapse by hand; what cannot be measured is absent."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.exam.calibration import (
    FIGURES,
    Calibration,
    calibration_error,
    calibration_metrics,
    distinct,
    ece,
    entropy,
    measure_calibration,
    repeated,
)
from ladder.exam.exam import Answers, Certainty, Exam, Probe, Prompt, Sampling

EXAM = Exam(
    recall={"Luna-G000": (Probe("a?", "yes"), Probe("t", " ea", "nll"))},
    generalize=(Probe("b?", "yes"), Probe("c?", "yes", "exact")),
    sampled=Sampling(4, 8),
)
CERTAINTY = {
    Prompt("a?"): Certainty(0.9, entropy=2.0, tokens=3),
    Prompt("b?"): Certainty(0.96, entropy=1.0, tokens=1),
    Prompt("c?"): Certainty(0.3, entropy=4.0, tokens=6),
}
LIVELY = ("the cat sat", "a dog ran far", "who goes there now", "nobody")


def answers(**changed: Any) -> Answers:
    usual: dict[str, Any] = {"recall": {"Luna-G000": ("yes", "0.5")}, "generalize": ("no", "yes"), "tone": ()}
    return Answers(**usual | {"sampled": LIVELY, "digest": "d", "certainty": CERTAINTY} | changed)


def test_calibration_error_is_weighted_by_bin() -> None:
    found = calibration_error([0.95, 0.95, 0.15, 1.0], [True, True, False, False])
    assert found == pytest.approx((abs(2.9 - 2.0) + 0.15) / 4)


def test_who_is_right_as_often_as_it_says_is_calibrated() -> None:
    sure = [level / 10 + 0.05 for level in range(10) for _ in range(20)]
    right = [place < 2 * level + 1 for level in range(10) for place in range(20)]
    assert calibration_error(sure, right) == pytest.approx(0.0)
    assert calibration_error(sure, [not one for one in right]) == pytest.approx(0.5)


def test_who_is_sure_of_everything_and_half_right_is_not() -> None:
    assert calibration_error([0.99] * 10, [True, False] * 5) == pytest.approx(0.49)
    assert calibration_error([0.01] * 10, [True, False] * 5) == pytest.approx(0.49), "too modest is no better"


def test_calibration_is_of_written_answers() -> None:
    """Two of the first bin from above, of which one is right, and one below; the likelihood of a text is none."""
    assert ece(EXAM, answers()) == pytest.approx((abs(0.9 + 0.96 - 1) + abs(0.3 - 1)) / 3)
    assert ece(Exam(generalize=(Probe("t", " ea", "nll"),)), answers(recall={}, generalize=("0.5",))) is None


def test_entropy_is_a_mean_over_tokens() -> None:
    assert entropy(answers()) == pytest.approx((2 * 3 + 1 + 4 * 6) / 10)


def test_distinct_words_and_pairs() -> None:
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b", "a b"], 2) == 0.5
    assert distinct(["a", "b", ""], 2) is None


def test_what_is_said_twice() -> None:
    assert repeated(["a", "a", "b", "c"]) == 0.5
    assert repeated(["a"]) is None


def test_a_collapse_is_seen() -> None:
    lively, collapsed = (
        calibration_metrics(EXAM, answers()),
        calibration_metrics(EXAM, answers(sampled=("the cat sat down",) * 4)),
    )
    assert list(lively) == list(FIGURES)
    assert collapsed["self_bleu"] == collapsed["repeated"] == 1.0
    assert collapsed["distinct_1"] == collapsed["distinct_2"] == 0.25
    assert lively["self_bleu"] < 0.2 and lively["repeated"] == 0.0
    assert lively["distinct_1"] == lively["distinct_2"] == 1.0
    assert (lively["words"], collapsed["words"]) == (3.0, 4.0)


def test_a_model_that_falls_silent_is_no_lively_one() -> None:
    found = calibration_metrics(EXAM, answers(sampled=("",) * 4))
    assert found["self_bleu"] == found["repeated"] == 1.0 and found["words"] == 0.0
    assert "distinct_1" not in found


def test_what_cannot_be_measured_is_absent() -> None:
    assert calibration_metrics(Exam(), Answers({}, (), (), (), "d")) == {}


def test_a_parents_own_texts_are_those_of_its_own_examination() -> None:
    own = {"child": {"ece": 0.7, "self_bleu": 0.3, "words": 5.0}, "sampled": {"count": 4, "tokens": 8}}
    calibration = measure_calibration(EXAM, answers(), answers(sampled=()), own)
    assert set(calibration.child) == set(FIGURES)
    assert calibration.parent == {"ece": ece(EXAM, answers()), "entropy": 3.1, "self_bleu": 0.3, "words": 5.0}
    assert Calibration(**calibration.to_dict()) == calibration


@pytest.mark.parametrize("before", [{}, {"child": {"self_bleu": 0.3}, "sampled": {"count": 64, "tokens": 8}}])
def test_texts_of_another_number_do_not_compare(before: dict[str, Any]) -> None:
    assert set(measure_calibration(EXAM, answers(), answers(sampled=()), before).parent) == {"ece", "entropy"}


def test_metrics_of_child_and_parent() -> None:
    calibration = Calibration({"ece": 0.1, "self_bleu": 0.2}, {"ece": 0.3})
    assert calibration.metrics() == {"pulse.ece": 0.1, "pulse.self_bleu": 0.2, "pulse.ece.parent": 0.3}
    assert measure_calibration(EXAM, answers(), None, {}).parent == {}
