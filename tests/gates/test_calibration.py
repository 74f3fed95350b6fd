"""The gate on calibration: its thresholds, its bounds, every way of failing closed, and reports without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ladder.exam import Probe, Told
from ladder.gates import GATES, GateReport, Measurements, decide
from ladder.gates.statistics import calibration_interval
from ladder.manifest import Gates
from ladder.report.charts import forests


def told(*kinds: tuple[float, int, int], group: str = "") -> tuple[Told, ...]:
    """Answers by kind: how sure of each, how many, how many of them right."""
    said = [(sure, place < right) for sure, count, right in kinds for place in range(count)]
    return tuple(
        Told(Probe(f"q{place}", "yes", group=group and f"{group}{place // 10}"), *one) for place, one in enumerate(said)
    )


CALIBRATED, SURE = told((0.95, 100, 95)), told((0.95, 100, 70))
"""Errors 0 and 0.25."""
OTHERWISE = tuple(one._replace(right=other.right) for one, other in zip(SURE, reversed(SURE), strict=True))
"""As sure and as wrong, in other places."""


def decided(child: tuple[Told, ...], parent: tuple[Told, ...] | None, **gate: Any) -> GateReport:
    gates = Gates.model_validate({"calibration": gate})
    ours = Measurements({}, (1.0,) * 4, written=child)
    theirs = None if parent is None else Measurements({}, (0.0,) * 4, written=parent)
    return decide(gates, ours, theirs, [])


@pytest.mark.parametrize(
    ("gate", "child", "parent", "threshold", "passed"),
    [
        ({}, SURE, SURE, 0.3, True),
        ({}, SURE, CALIBRATED, 0.05, False),
        ({}, CALIBRATED, SURE, 0.3, True),
        ({"max_rise": 0.25}, SURE, CALIBRATED, 0.25, True),
        ({"max_rise": 0.25, "maximum": 0.2}, SURE, CALIBRATED, 0.2, False),
        ({"maximum": 0.2}, SURE, SURE, 0.2, False),
        ({"maximum": 0.2}, SURE, None, 0.2, False),
        ({"maximum": 0.25}, SURE, None, 0.25, True),
        # As they are they pass; that no rise of 0.02 is there, 100 answers cannot say.
        ({"max_rise": 0.02}, OTHERWISE, SURE, 0.27, True),
        ({"max_rise": 0.02, "evidence": "interval"}, OTHERWISE, SURE, 0.27, False),
        ({"max_rise": 0.2, "evidence": "interval"}, OTHERWISE, SURE, 0.45, True),
        ({"max_rise": 0.02, "evidence": "interval"}, SURE, SURE, 0.27, True),
    ],
)
def test_thresholds(gate: dict[str, Any], child, parent, threshold: float, passed: bool) -> None:
    report = decided(child, parent, **gate)
    found = report.results[-1]
    assert (found.name, found.passed, found.n) == ("calibration", passed, 100)
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    assert found.value == pytest.approx(0.0 if child is CALIBRATED else 0.25)
    assert report.passed is passed is ("calibration" not in report.failed)
    assert GateReport.from_dict(report.to_dict()) == report
    assert report.metrics()["gate.calibration"] == found.value
    if parent is not None:
        assert found.low is not None and found.high is not None and found.low < found.high
        assert report.metrics()["gate.calibration.high"] == found.high


@pytest.mark.parametrize(
    ("child", "parent"), [((), None), ((), SURE), (SURE, ()), (SURE, SURE[1:]), (SURE, told((0.9, 99, 9), (0.1, 1, 1)))]
)
def test_what_cannot_be_compared_fails(child, parent) -> None:
    if len(parent or ()) == 100:
        parent = (*parent[:99], replace_probe(parent[99]))
    found = decided(child, parent, maximum=0.5).results[-1]
    assert not found.passed and found.applicable and found.value is None


def replace_probe(one: Told) -> Told:
    return one._replace(probe=replace(one.probe, prompt="another"))


def test_a_report_without_the_section_is_as_it_was() -> None:
    ours, theirs = Measurements({}, (1.0,) * 4, written=SURE), Measurements({}, (0.0,) * 4, written=CALIBRATED)
    report = decide(Gates(), ours, theirs, [])
    assert tuple(result.name for result in report.results) == GATES
    assert "calibration" not in report.settings and len(forests(report)) == 2


def test_a_report_that_lost_the_gate_has_not_passed() -> None:
    report = decided(SURE, SURE)
    assert report.passed and not replace(report, results=report.results[:-1]).passed


def test_the_forest_shows_the_error_on_its_own() -> None:
    (row,) = forests(decided(SURE, CALIBRATED))[2]
    assert (row.label, row.state) == ("calibration", "failed")
    assert (row.value, row.margin) == pytest.approx((0.25, 0.05))


def test_the_same_answers_have_the_same_bounds_on_both_sides() -> None:
    found = calibration_interval(SURE, SURE, 0.95)
    assert found.low == pytest.approx(-found.high) and 0 < found.high < 0.05
    mirrored = calibration_interval(SURE, CALIBRATED, 0.95), calibration_interval(CALIBRATED, SURE, 0.95)
    assert (mirrored[0].low, mirrored[0].high) == pytest.approx((-mirrored[1].high, -mirrored[1].low))
    assert mirrored[0].low <= 0.25 <= mirrored[0].high
    assert calibration_interval(SURE, CALIBRATED, 0.99).high > mirrored[0].high


def test_bounds_reach_a_rise_that_chance_hides() -> None:
    """A calibrated parent shows an error by chance: 0.1 beside the child's 0.15, and yet 0.15 is the rise."""
    parent = told(*[(0.05 + place / 10, 10, place + (-1 if place % 2 else 1)) for place in range(1, 9)])
    child = told(*[(0.05 + place / 10, 10, place - 1) for place in range(1, 9)])
    found = calibration_interval(child, parent, 0.95)
    assert found.high > 0.15


def test_answers_of_a_group_are_one_observation() -> None:
    """Ten groups, each right or wrong as a whole."""
    kinds = [(0.75, 10, right) for right in (10, 10, 0, 10, 10, 0, 10, 10, 10, 0)]
    parent = [(0.75, 10, right) for right in (10, 0, 10, 10, 10, 10, 0, 10, 10, 0)]
    alone = calibration_interval(told(*kinds), told(*parent), 0.95)
    together = calibration_interval(told(*kinds, group="g"), told(*parent, group="g"), 0.95)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    one = calibration_interval(told((0.9, 5, 1), group="g"), told((0.9, 5, 1), group="g"), 0.95)
    assert (one.low, one.high) == (-1.0, 1.0)
