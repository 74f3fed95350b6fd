"""The decision: thresholds and their boundaries, and every way of failing closed (T13)."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from ladder.errors import GateError
from ladder.gates.decision import GATES, GateReport, GateResult, decide
from ladder.gates.measurements import Measurements
from ladder.laws.law import Findings, LawResult, Violation
from ladder.manifest.schema import Gates
from tests.tally import Tally

NAN, INF = math.nan, math.inf
VOICED = Gates.model_validate({"tone": {"reference": "voice.txt"}})


def scores(share: float | None, n: int) -> tuple[float, ...]:
    """``n`` answers of which a share is right, the right ones first, so that the same answers are lost and kept."""
    right = round((share or 0.0) * n)
    return () if share is None else (1.0,) * right + (0.0,) * (n - right)


def figures(recall=1.0, generalize=1.0, tone=0.0, *, recall_n=100, generalize_n=100, tone_n=40) -> Measurements:
    left = {} if recall is None else {"Luna-G000": scores(recall, recall_n)}
    return Measurements(left, scores(generalize, generalize_n), tone, tone_n)


def result(
    name: str, gates: dict, child: Measurements, parent: Measurements | None, evidence: str = "point", **more
) -> GateResult:
    both = {gate: {"evidence": evidence} | gates.get(gate, {}) for gate in ("recall", "generalize")}
    report = decide(Gates.model_validate(gates | both), child, parent, [], **more)
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
        ({"min_gain": 0.0}, 0.5, 0.49, 0.5, False),
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
    assert (found.value, found.parent_value, found.n) == (child, parent, 100)


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


BAD_FIGURES = "T13, figures that are NaN, out of range or missing"
GOOD_CHILD, GOOD_PARENT = figures(0.9, 0.9, 0.01), figures(0.9, 0.5, 0.01)


def test_the_good_child_passes():
    assert decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).passed


def spoilt(figures: Measurements, gate: str, bad: float) -> Measurements:
    """One bad score among the good ones, or a bad drift."""
    if gate == "tone":
        return replace(figures, tone_drift=bad)
    if gate == "generalize":
        return replace(figures, generalize=(*figures.generalize[:-1], bad))
    return replace(figures, recall={name: (*each[:-1], bad) for name, each in figures.recall.items()})


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -0.1, 1.1])
@pytest.mark.parametrize("gate", ["recall", "generalize", "tone"])
def test_a_figure_that_is_none_fails_its_gate_alone(tally: Tally, gate, bad):
    report = decide(VOICED, spoilt(GOOD_CHILD, gate, bad), GOOD_PARENT, [])
    tally(BAD_FIGURES, tried=1, failed_closed=report.failed == (gate,))
    assert report.failed == (gate,)
    failed = report.results[GATES.index(gate)]
    assert "child's figure" in failed.detail
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("bad", [NAN, INF, -0.1, 1.1])
@pytest.mark.parametrize("gate", ["recall", "generalize"])
def test_a_parent_without_a_figure_fails_the_child(tally: Tally, gate, bad):
    report = decide(VOICED, GOOD_CHILD, spoilt(GOOD_PARENT, gate, bad), [])
    tally(BAD_FIGURES, tried=1, failed_closed=report.failed == (gate,))
    assert report.failed == (gate,)
    assert "parent's figure" in report.results[GATES.index(gate)].detail


@pytest.mark.parametrize("change", [{"recall": {}}, {"generalize": ()}, {"tone_n": 0}, {"tone_drift": None}])
def test_a_figure_over_nothing_fails(tally: Tally, change):
    (gate,) = {name.split("_")[0] for name in change}
    failed = decide(VOICED, replace(GOOD_CHILD, **change), GOOD_PARENT, []).failed
    tally(BAD_FIGURES, tried=1, failed_closed=failed == (gate,))
    assert failed == (gate,)


@pytest.mark.parametrize("other", [{"recall_n": 90}, {"generalize_n": 40}])
def test_another_exam_than_the_parents_fails(other):
    ((field, _),) = other.items()
    gate = field.removesuffix("_n")
    report = decide(VOICED, figures(0.9, 0.9, 0.01, **other), GOOD_PARENT, [])
    assert report.failed == (gate,)
    assert "same exam" in report.results[GATES.index(gate)].detail


def test_probes_of_another_ancestor_fail():
    child = replace(GOOD_CHILD, recall={"Luna-G001": GOOD_CHILD.recall["Luna-G000"]})
    report = decide(VOICED, child, GOOD_PARENT, [])
    assert report.failed == ("recall",)
    assert "100 probes of Luna-G001" in report.results[0].detail


def of(**ancestors: tuple[float, ...]) -> Measurements:
    return Measurements(ancestors, scores(1.0, 50))


def parent_of(**ancestors: tuple[float, ...]) -> Measurements:
    return replace(of(**ancestors), generalize=scores(0.0, 50))


def test_recall_weighs_ancestors_and_not_probes():
    """One that left few probes is not drowned by one that left many."""
    child, parent = of(old=scores(0.8, 20), new=scores(1.0, 180)), parent_of(old=scores(1.0, 20), new=scores(1.0, 180))
    found = result("recall", {}, child, parent)
    assert (found.value, found.parent_value, found.n, found.passed) == (pytest.approx(0.9), 1.0, 200, False)


def test_what_one_ancestor_lost_is_not_made_up_by_the_others():
    before = {name: scores(0.7, 40) for name in ("a", "b", "c", "d")}
    after = {name: scores(0.9, 40) for name in before} | {"c": scores(0.4, 40)}
    report = decide(Gates(), of(**after), parent_of(**before), [])
    assert report.results[0].value > report.results[0].parent_value
    assert report.failed == ("recall",)
    assert "c was forgotten: the parent has 0.7000, the child 0.4000" in report.results[0].detail
    assert [name for name, one in report.per_ancestor.items() if one.fallen] == ["c"]


def test_what_chance_takes_from_one_of_many_ancestors_is_not_called_forgotten():
    """Three of twenty lost is more than is allowed, and nothing that tells it from chance."""
    before = {f"a{n}": scores(1.0, 20) for n in range(8)}
    report = decide(Gates(), of(**before | {"a3": scores(0.85, 20)}), parent_of(**before), [])
    assert report.passed
    assert report.per_ancestor["a3"].high > 0 > report.per_ancestor["a3"].low


@pytest.mark.parametrize(("ancestors", "forgotten"), [(1, True), (8, False)])
def test_of_many_ancestors_one_loses_by_chance_what_a_single_one_does_not(ancestors, forgotten):
    before = {f"a{n}": scores(1.0, 40) for n in range(ancestors)}
    report = decide(Gates(), of(**before | {"a0": scores(0.85, 40)}), parent_of(**before), [])
    assert bool(report.per_ancestor["a0"].fallen) is forgotten


@pytest.mark.parametrize(("origin", "passed"), [(0.9, True), (0.85, True), (0.91, False), (1.0, False)])
def test_small_drops_that_added_up(origin, passed):
    """A quarter below what the ancestor had itself is allowed, whatever the parent has."""
    child = parent = figures(0.65)
    found = result("recall", {}, child, parent, origins={"Luna-G000": origin, "Luna-G007": 1.0})
    assert found.passed is passed
    assert ("slid too far" in found.detail) is not passed


@pytest.mark.parametrize(
    ("lost", "n", "passed"),
    [
        # None lost of many rules a drop of 0.05 out, none of few does not; nor do figures that hold by themselves.
        (0, 100, True),
        (0, 40, False),
        (2, 100, False),
        (2, 200, True),
    ],
)
def test_recall_by_interval_rules_a_drop_out(lost, n, passed):
    child, parent = figures((n - lost) / n, recall_n=n), figures(1.0, recall_n=n)
    found = result("recall", {}, child, parent, "interval")
    assert result("recall", {}, child, parent, "point").passed
    assert found.passed is passed is (found.low >= -0.05)
    assert ("ruled out" in found.detail) is not passed


@pytest.mark.parametrize(
    ("gate", "child", "n", "passed"),
    [
        # A gain of 0.04 may be chance over 50 probes, and is none over 400.
        ({}, 0.54, 50, False),
        ({}, 0.54, 400, True),
        ({}, 0.5, 400, False),
        # Nobody can be better than the ceiling by much; the figure is enough.
        ({"ceiling": 0.54}, 0.54, 50, True),
        # Where a loss is allowed, it must be ruled out.
        ({"min_gain": -0.1}, 0.5, 100, True),
        ({"min_gain": -0.1}, 0.44, 100, False),
        ({"min_gain": 0.0}, 0.5, 400, False),
    ],
)
def test_generalize_by_interval_asks_for_a_gain_beyond_doubt(gate, child, n, passed):
    ours, theirs = figures(generalize=child, generalize_n=n), figures(generalize=0.5, generalize_n=n)
    found = result("generalize", {"generalize": gate}, ours, theirs, "interval")
    assert found.passed is passed
    assert ("beyond doubt" in found.detail) is not passed


def test_by_default_a_gain_must_be_beyond_doubt_and_a_drop_need_not_be():
    drop, gain = figures(0.97, 0.54), figures(1.0, 0.5)
    assert decide(Gates(), drop, gain, []).failed == ("generalize",)
    assert decide(Gates.model_validate({"recall": {"evidence": "interval"}}), drop, gain, []).failed == (
        "recall",
        "generalize",
    )


def test_more_confidence_asks_for_more():
    ours, theirs = figures(generalize=0.6), figures(generalize=0.5)
    assert result("generalize", {"confidence": 0.95}, ours, theirs, "interval").passed
    assert not result("generalize", {"confidence": 0.9999}, ours, theirs, "interval").passed


def test_why_a_tone_was_not_measured_is_in_the_verdict():
    child = replace(GOOD_CHILD, tone_drift=NAN, remarks=("tone: too few answers",))
    assert "too few answers" in decide(VOICED, child, GOOD_PARENT, []).results[2].detail


UNASKED = figures(None, 0.9)


@pytest.mark.parametrize(
    ("minimum", "child", "parent", "passed", "applicable"),
    [
        # A genesis has nothing to forget, whatever the minimum.
        (0.0, UNASKED, None, True, False),
        (0.9, UNASKED, None, True, False),
        # Ancestors that left no probes.
        (0.0, UNASKED, figures(None, 0.5), True, False),
        (0.1, UNASKED, figures(None, 0.5), False, True),
        # Probes that only one of the two was asked.
        (0.0, UNASKED, figures(0.9, 0.5), False, True),
        (0.0, figures(), figures(None, 0.5), False, True),
        (0.0, UNASKED, figures(0.0, 0.5), False, True),
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
        ({}, figures(generalize=None), False),
        ({"min_gain": -1.0}, figures(generalize=None), True),
        ({"min_gain": -0.99}, figures(generalize=None), False),
        ({"min_gain": -1.0, "minimum": 0.1}, figures(generalize=None), False),
    ],
)
def test_generalize_without_probes(gate, parent, passed):
    found = result("generalize", {"generalize": gate}, figures(generalize=None), parent)
    assert (found.passed, found.applicable) == (passed, not passed)


def test_the_report_survives_strict_json():
    kept = LawResult("taboo", "text", 1, {"taboo_words": ["y"]}, Findings(100, (), 9, "a remark"))
    judged = [*laws(BROKEN, sampled=9), kept]
    report = decide(VOICED, GOOD_CHILD, replace(GOOD_PARENT, tone_drift=NAN), judged, {"Luna-G000": 0.8})
    stored = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (stored["passed"], stored["failed"]) == (False, ["laws"])
    assert stored["settings"]["recall"]["max_drop"] == 0.05
    assert stored["per_ancestor"]["Luna-G000"]["origin"] == 0.8
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
        {"per_ancestor": {"Luna-G000": 0.75}},
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
    metrics = decide(VOICED, GOOD_CHILD, GOOD_PARENT, []).metrics()
    bounds = {name: metrics.pop(name) for name in [*metrics] if name.endswith((".low", ".high"))}
    assert bounds.keys() == {f"gate.{gate}.{end}" for gate in ("recall", "generalize") for end in ("low", "high")}
    assert 0.25 < bounds["gate.generalize.low"] < 0.4 < bounds["gate.generalize.high"] < 0.55
    assert metrics == pytest.approx(
        {
            "gate.passed": 1.0,
            "gate.recall": 0.9,
            "gate.recall.parent": 0.9,
            "gate.recall.threshold": 0.85,
            "gate.recall.Luna-G000": 0.9,
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
    metrics = decide(VOICED, spoilt(GOOD_CHILD, "recall", NAN), GOOD_PARENT, laws(BROKEN)).metrics()
    assert "gate.recall" not in metrics
    assert (metrics["gate.passed"], metrics["gate.law_violations"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("gate", "parent", "child", "threshold", "passed"),
    [
        ({}, (0.9, 0.7), (0.76, 0.76), 0.76, True),
        ({}, (0.9, 0.7), (0.75, 0.75), 0.76, False),
        ({"minimum": 0.78}, (0.9, 0.7), (0.77, 0.77), 0.78, False),
        ({"min_ratio": 0.0, "minimum": 0.5}, (1.0,), (0.5,), 0.5, True),
        ({"minimum": 0.8}, None, (0.79,), 0.8, False),
        ({"minimum": 0.8}, None, (0.8,), 0.8, True),
        ({}, (0.9,), (NAN,), None, False),
        ({}, (0.9, 0.9), (0.9,), None, False),
        ({}, (), (), None, False),
    ],
)
def test_coherence(gate, parent, child, threshold, passed):
    gates = Gates.model_validate({"coherence": gate, "recall": {"evidence": "point"}})
    before = None if parent is None else replace(figures(), masses=parent)
    report = decide(gates, replace(figures(), masses=child), before, [])
    (found,) = (one for one in report.results if one.name == "coherence")
    assert found.passed is passed and ("coherence" in report.failed) is not passed
    if threshold is not None:
        assert found.threshold == pytest.approx(threshold)
        assert report.metrics()["gate.coherence"] == pytest.approx(found.value)
    assert GateReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    bare = decide(Gates(), figures(), figures(), [])
    assert "coherence" not in bare.settings and "gate.coherence" not in bare.metrics()
