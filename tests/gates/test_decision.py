"""The decision: thresholds and their boundaries, and every way of failing closed (T13)."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from ladder.errors import GateError
from ladder.gates.decision import decide
from ladder.gates.law import Findings, LawResult, Violation
from ladder.gates.measure import Measurements
from ladder.gates.verdict import GATES, GateReport, GateResult
from ladder.manifest.schema import Gates

NAN, INF = math.nan, math.inf
VOICED = Gates.model_validate({"tone": {"reference": "voice.txt"}})


def figures(recall=1.0, generalize=1.0, tone=0.0, *, recall_n=100, generalize_n=50, tone_n=40, **more) -> Measurements:
    return Measurements(recall, recall_n, generalize, generalize_n, tone, tone_n, **more)


def result(name: str, gates: dict, child: Measurements, parent: Measurements | None) -> GateResult:
    report = decide(Gates.model_validate(gates), child, parent, [])
    assert tuple(result.name for result in report.results) == GATES
    found = report.results[GATES.index(name)]
    assert (name in report.failed) is not found.passed
    return found


@pytest.mark.parametrize(
    ("gate", "parent", "child", "threshold", "passed"),
    [
        # The boundary itself passes, also where 0.9 - 0.05 is 0.8500000000000001 in floating point.
        ({}, 1.0, 0.95, 0.95, True),
        ({}, 0.9, 0.85, 0.85, True),
        ({}, 1.0, 0.94, 0.95, False),
        ({}, 1.0, 0.9499, 0.95, False),
        ({}, 0.02, 0.0, 0.0, True),
        ({"max_drop": 0.0}, 0.7, 0.7, 0.7, True),
        ({"max_drop": 0.0}, 0.7, 0.69, 0.7, False),
        ({"max_drop": 1.0}, 1.0, 0.0, 0.0, True),
        ({"minimum": 0.6}, 0.5, 0.59, 0.6, False),
        ({"minimum": 0.6}, 0.5, 0.6, 0.6, True),
        ({"minimum": 0.6}, 0.9, 0.8, 0.85, False),
        ({}, None, 0.0, 0.0, True),
        ({"minimum": 0.3}, None, 0.29, 0.3, False),
        ({"minimum": 0.3}, None, 0.3, 0.3, True),
    ],
)
def test_recall(gate, parent, child, threshold, passed):
    found = result("recall", {"recall": gate}, figures(recall=child), parent if parent is None else figures(parent))
    assert found.passed is passed
    assert found.threshold == pytest.approx(threshold)
    assert (found.value, found.parent_value, found.n, found.applicable) == (child, parent, 100, True)


@pytest.mark.parametrize(
    ("gate", "parent", "child", "threshold", "passed"),
    [
        ({}, 0.5, 0.52, 0.52, True),
        ({}, 0.5, 0.51, 0.52, False),
        # A tie is no gain.
        ({}, 0.5, 0.5, 0.52, False),
        ({"min_gain": 0.0}, 0.5, 0.5, 0.5, True),
        ({"min_gain": 0.0}, 0.5, 0.4999, 0.5, False),
        # 0.1 + 0.02 is more than 0.12 in floating point.
        ({}, 0.1, 0.12, 0.12, True),
        # Near the top the ceiling is enough.
        ({}, 0.97, 0.98, 0.98, True),
        ({}, 1.0, 0.98, 0.98, True),
        ({}, 1.0, 0.97, 0.98, False),
        ({"ceiling": 0.4}, 0.9, 0.4, 0.4, True),
        ({"minimum": 0.6}, 0.1, 0.5, 0.6, False),
        ({"minimum": 0.99}, 1.0, 0.98, 0.99, False),
        ({"minimum": 0.99}, 1.0, 0.99, 0.99, True),
        ({"min_gain": -0.1}, 0.5, 0.4, 0.4, True),
        ({}, None, 0.0, 0.0, True),
        ({"minimum": 0.3}, None, 0.29, 0.3, False),
        ({"minimum": 0.3}, None, 0.3, 0.3, True),
    ],
)
def test_generalize(gate, parent, child, threshold, passed):
    before = None if parent is None else figures(generalize=parent)
    found = result("generalize", {"generalize": gate}, figures(generalize=child), before)
    assert found.passed is passed
    assert found.threshold == pytest.approx(threshold)
    assert (found.value, found.parent_value, found.n) == (child, parent, 50)


@pytest.mark.parametrize(
    ("gate", "drift", "passed"),
    [
        ({}, 0.0, True),
        ({}, 0.05, True),
        ({}, 0.0501, False),
        ({}, 1.0, False),
        ({"max_drift": 0.0}, 0.0, True),
        ({"max_drift": 0.0}, 0.001, False),
    ],
)
def test_tone(gate, drift, passed):
    tone = {"reference": "voice.txt", **gate}
    found = result("tone", {"tone": tone}, figures(tone=drift), figures(tone=0.5))
    assert found.passed is passed
    assert (found.value, found.parent_value, found.n, found.threshold) == (drift, 0.5, 40, gate.get("max_drift", 0.05))


@pytest.mark.parametrize("drift", [None, 0.9, NAN])
def test_tone_before_the_voice_age(drift):
    found = result("tone", {}, figures(tone=drift), figures())
    assert (found.passed, found.applicable, found.value) == (True, False, None)


BROKEN = Violation("forbidden_text", "'x' matches 'x'", "sampled 3")


def laws(*violations: Violation, sampled: int = 0) -> list[LawResult]:
    found = Findings(100, violations, sampled)
    return [LawResult("forbidden_text", "text", 1, {"forbidden_text": ["x"]}, found)]


@pytest.mark.parametrize(("violations", "passed"), [([], True), ([BROKEN], False), ([BROKEN] * 3, False)])
def test_laws(violations, passed):
    report = decide(Gates(), figures(), figures(generalize=0.5), laws(*violations))
    assert report.passed is passed
    assert report.violations == tuple(violations)
    assert report.results[-1].value == len(violations)
    assert not violations or "forbidden_text at sampled 3" in report.results[-1].detail


def test_the_gate_says_how_often_sampled_texts_may_still_break_a_law():
    none, some = (decide(Gates(), figures(), None, laws(*found, sampled=64)) for found in ((), (BROKEN, BROKEN)))
    assert none.results[-1].detail == (
        "0 violations of 1 law; 0 of 64 sampled texts break one, so at most 4.6% of such texts do (95% confidence)"
    )
    assert some.results[-1].detail.endswith(
        "1 of 64 sampled texts break one, so at most 7.2% of such texts do (95% confidence)"
    )
    assert "sampled" not in decide(Gates(), figures(), None, laws()).results[-1].detail


def test_laws_that_nobody_examined_fail():
    report = decide(Gates(), figures(), figures(generalize=0.5), None)
    assert report.failed == ("laws",)


GOOD_CHILD, GOOD_PARENT = figures(0.9, 0.9, 0.01), figures(0.9, 0.5, 0.01)


def test_the_good_child_passes():
    assert decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).passed


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -0.1, 1.1, None])
@pytest.mark.parametrize(
    ("field", "gate"), [("recall", "recall"), ("generalize", "generalize"), ("tone_drift", "tone")]
)
def test_a_figure_that_is_none_fails_its_gate_alone(field, gate, bad):
    report = decide(VOICED, replace(GOOD_CHILD, **{field: bad}), GOOD_PARENT, [])
    assert report.failed == (gate,)
    failed = report.results[GATES.index(gate)]
    assert "child's figure" in failed.detail
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("bad", [NAN, INF, -0.1, 1.1, None])
@pytest.mark.parametrize("gate", ["recall", "generalize"])
def test_a_parent_without_a_figure_fails_the_child(gate, bad):
    report = decide(VOICED, GOOD_CHILD, replace(GOOD_PARENT, **{gate: bad}), [])
    assert report.failed == (gate,)
    assert "parent's figure" in report.results[GATES.index(gate)].detail


@pytest.mark.parametrize("n", [0, -1])
@pytest.mark.parametrize("gate", ["recall", "generalize", "tone"])
def test_a_figure_over_nothing_fails(gate, n):
    assert decide(VOICED, replace(GOOD_CHILD, **{f"{gate}_n": n}), GOOD_PARENT, []).failed == (gate,)


@pytest.mark.parametrize("gate", ["recall", "generalize"])
def test_another_exam_than_the_parents_fails(gate):
    report = decide(VOICED, replace(GOOD_CHILD, **{f"{gate}_n": 99}), GOOD_PARENT, [])
    assert report.failed == (gate,)
    assert "same exam" in report.results[GATES.index(gate)].detail


def test_why_a_tone_was_not_measured_is_in_the_verdict():
    child = replace(GOOD_CHILD, tone_drift=NAN, remarks=("tone: too few answers",))
    assert "too few answers" in decide(VOICED, child, GOOD_PARENT, []).results[2].detail


UNASKED = figures(None, 0.9, recall_n=0)


@pytest.mark.parametrize(
    ("minimum", "child", "parent", "passed", "applicable"),
    [
        # A genesis has nothing to forget, whatever the minimum.
        (0.0, UNASKED, None, True, False),
        (0.9, UNASKED, None, True, False),
        # Ancestors that left no probes.
        (0.0, UNASKED, figures(None, 0.5, recall_n=0), True, False),
        (0.1, UNASKED, figures(None, 0.5, recall_n=0), False, True),
        # Probes that only one of the two was asked.
        (0.0, UNASKED, figures(0.9, 0.5), False, True),
        (0.0, figures(), figures(None, 0.5, recall_n=0), False, True),
        (0.0, UNASKED, figures(0.0, 0.5, recall_n=0), False, True),
    ],
)
def test_recall_without_probes(minimum, child, parent, passed, applicable):
    found = result("recall", {"recall": {"minimum": minimum}}, child, parent)
    assert (found.passed, found.applicable) == (passed, applicable)


@pytest.mark.parametrize(
    ("gate", "parent", "passed"),
    [
        ({}, None, True),
        ({"minimum": 0.1}, None, False),
        ({}, figures(generalize=None, generalize_n=0), False),
        ({"min_gain": -1.0}, figures(generalize=None, generalize_n=0), True),
        ({"min_gain": -0.99}, figures(generalize=None, generalize_n=0), False),
        ({"min_gain": -1.0, "minimum": 0.1}, figures(generalize=None, generalize_n=0), False),
    ],
)
def test_generalize_without_probes(gate, parent, passed):
    found = result("generalize", {"generalize": gate}, figures(generalize=None, generalize_n=0), parent)
    assert (found.passed, found.applicable) == (passed, not passed)


def test_the_report_survives_strict_json():
    child = replace(GOOD_CHILD, recall_by={"Luna-G000": 0.75, "Luna-G001": NAN})
    kept = LawResult("taboo", "text", 1, {"taboo_words": ["y"]}, Findings(100, (), 9, "a remark"))
    report = decide(VOICED, child, replace(GOOD_PARENT, tone_drift=NAN), [*laws(BROKEN, sampled=9), kept])
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (stored["passed"], stored["failed"]) == (False, ["laws"])
    assert stored["settings"]["recall"]["max_drop"] == 0.05
    assert stored["laws"][0]["violations"] == 1
    assert GateReport.from_dict(stored) == report


def test_a_report_from_before_laws_were_listed_is_read():
    stored = decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).to_dict()
    del stored["laws"]
    assert GateReport.from_dict(stored).laws == ()


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"violations": 0}, {"upper_bound": 0.0}, {"n": 5}, {"parameters": {}}]
)
def test_a_stored_law_that_contradicts_itself_is_refused(change):
    stored = decide(VOICED, GOOD_CHILD, GOOD_PARENT, laws(BROKEN)).to_dict()
    stored["laws"][0] |= change
    with pytest.raises(GateError, match="those of law forbidden_text"):
        GateReport.from_dict(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"results": []},
        {"results": [{"name": "recall"}]},
        {"passed": False},
        {"passed": "yes"},
        {"violations": [{}]},
        {"settings": None},
    ],
)
def test_a_stored_report_that_contradicts_itself_is_refused(change):
    stored = decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).to_dict()
    with pytest.raises(GateError):
        GateReport.from_dict({**stored, **change})


def test_a_stored_report_without_a_part_is_refused():
    stored = decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).to_dict()
    for key in ("passed", "results", "violations", "settings", "per_ancestor"):
        with pytest.raises(GateError):
            GateReport.from_dict({name: value for name, value in stored.items() if name != key})


def test_a_report_without_all_four_gates_has_not_passed():
    report = decide(VOICED, GOOD_CHILD, GOOD_PARENT, [])
    assert not replace(report, results=()).passed
    assert not replace(report, results=report.results[:3]).passed
    assert not replace(report, results=report.results[:3] * 2).passed


def test_metrics():
    child = replace(GOOD_CHILD, recall_by={"Luna-G000": 0.75})
    assert decide(VOICED, child, GOOD_PARENT, []).metrics() == pytest.approx(
        {
            "gate.passed": 1.0,
            "gate.recall": 0.9,
            "gate.recall.parent": 0.9,
            "gate.recall.threshold": 0.85,
            "gate.recall.Luna-G000": 0.75,
            "gate.generalize": 0.9,
            "gate.generalize.parent": 0.5,
            "gate.generalize.threshold": 0.52,
            "gate.tone_drift": 0.01,
            "gate.tone_drift.parent": 0.01,
            "gate.tone_drift.threshold": 0.05,
            "gate.law_violations": 0.0,
            "gate.law_violations.threshold": 0.0,
        }
    )


def test_a_failed_gate_leaves_no_figure_to_plot():
    metrics = decide(VOICED, replace(GOOD_CHILD, recall=NAN), GOOD_PARENT, laws(BROKEN)).metrics()
    assert "gate.recall" not in metrics
    assert (metrics["gate.passed"], metrics["gate.law_violations"]) == (0.0, 1.0)
