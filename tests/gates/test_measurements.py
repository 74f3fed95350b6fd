"""Figures from answers: probe by probe, per ancestor, and refused where answers are missing."""

from __future__ import annotations

import math
import pickle

import pytest

from ladder.errors import GateError
from ladder.exam.exam import Answers, Exam, Noise, Probe, Prompt
from ladder.gates.measurements import accuracy, measure

A, B, C = Probe("a?", "yes"), Probe("b?", "yes"), Probe("c?", "yes")
EXAM = Exam(recall={"Luna-G000": (A, B, C), "Luna-G001": (A,), "Luna-G002": ()}, generalize=(B, C))
VOICE = [f"Well now, friend, that be number {number} for ye." for number in range(30)]


def answers(**changed) -> Answers:
    given = {
        "recall": {"Luna-G000": ("yes", "no", "yes"), "Luna-G001": ("no",), "Luna-G002": ()},
        "generalize": ("yes", "no"),
        "tone": (),
        "sampled": (),
        "digest": "d",
    }
    return Answers(**{**given, **changed})


@pytest.mark.parametrize(
    ("given", "share"), [(("yes", "yes", "yes"), 1.0), (("no", "yes", ""), 1 / 3), (("", "", ""), 0.0)]
)
def test_accuracy(given, share):
    assert accuracy((A, B, C), given) == share


@pytest.mark.parametrize(("probes", "given"), [((), ()), ((A,), ()), ((A, B), ("yes",)), ((A,), ("yes", "yes"))])
def test_accuracy_needs_one_answer_a_probe(probes, given):
    with pytest.raises(GateError):
        accuracy(probes, given)


def test_each_probe_has_its_score_in_the_order_of_the_exam():
    found = measure(EXAM, answers(), None)
    assert found.recall == {"Luna-G000": (1.0, 0.0, 1.0), "Luna-G001": (0.0,)}
    assert found.recall_by == {"Luna-G000": 2 / 3, "Luna-G001": 0.0}
    assert found.generalize == (1.0, 0.0)
    assert (found.tone_drift, found.tone_n, found.remarks) == (None, 0, ())


def test_an_ancestor_that_left_nothing_is_absent():
    found = measure(Exam(recall={"Luna-G000": ()}), answers(recall={"Luna-G000": ()}, generalize=()), None)
    assert (found.recall, found.generalize) == ({}, ())


@pytest.mark.parametrize(
    "changed",
    [
        {"recall": {}},
        {"recall": {"Luna-G000": ("yes", "no", "yes"), "Luna-G001": ("no",), "Luna-G003": ()}},
        {"recall": {"Luna-G000": ("yes", "no"), "Luna-G001": ("no",), "Luna-G002": ()}},
        {"generalize": ("yes",)},
        {"generalize": ()},
    ],
)
def test_missing_answers_are_an_error(changed):
    with pytest.raises(GateError):
        measure(EXAM, answers(**changed), None)


def exam_with_tone(count: int) -> Exam:
    return Exam(tone_prompts=tuple(Prompt(f"{number}?") for number in range(count)))


def test_tone_of_the_voice_itself():
    found = measure(exam_with_tone(30), answers(recall={}, generalize=(), tone=tuple(VOICE)), VOICE)
    assert found.tone_drift is not None and found.tone_drift < 0.02
    assert found.tone_n == 30


@pytest.mark.parametrize("said", [(), ("Well now, friend.",) * 3])
def test_tone_that_cannot_be_measured_is_nan_with_a_reason(said):
    found = measure(exam_with_tone(len(said)), answers(recall={}, generalize=(), tone=said), VOICE)
    assert found.tone_drift is not None and math.isnan(found.tone_drift)
    assert "gates.tone.prompts" in found.remarks[0]


def test_an_empty_reference_is_not_no_reference():
    found = measure(exam_with_tone(30), answers(recall={}, generalize=(), tone=tuple(VOICE)), [])
    assert found.tone_drift is not None and math.isnan(found.tone_drift)


def test_missing_tone_answers_are_an_error():
    with pytest.raises(GateError, match="tone prompts"):
        measure(exam_with_tone(31), answers(recall={}, generalize=(), tone=tuple(VOICE)), VOICE)


def test_exam_and_answers_cross_process_boundaries():
    given = answers(noise=Noise(3, 1))
    assert pickle.loads(pickle.dumps((EXAM, given))) == (EXAM, given)


def test_every_question_is_asked_once():
    exam = Exam(
        recall={"G0": (A, B)},
        generalize=(B, C),
        tone_prompts=(Prompt("c?"), Prompt("c?", chat=True)),
        law_prompts=(Prompt("d?"), Prompt("a?")),
    )
    assert exam.prompt_set().prompts == (
        Prompt("a?"),
        Prompt("b?"),
        Prompt("c?"),
        Prompt("c?", chat=True),
        Prompt("d?"),
    )


def test_all_texts_are_for_the_laws():
    given = answers(tone=("t",), sampled=("s", "u"))
    assert EXAM.texts(given) == {
        "recall Luna-G000": ("yes", "no", "yes"),
        "recall Luna-G001": ("no",),
        "recall Luna-G002": (),
        "generalize": ("yes", "no"),
        "tone": ("t",),
        "laws": (),
        "sampled": ("s", "u"),
    }
