"""Gates on a metric: the words of MLflow's MetricThreshold at their boundaries, and every way of failing closed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from ladder.exam.suites import SuiteMetric
from ladder.gates import GATES, GateReport, GateResult, Measurements, decide
from ladder.gates.decision import hold
from ladder.manifest.schema import Gates, MetricGate
from ladder.report.card import gate_table
from tests.tally import Tally


def gate(greater: bool = True, **asked: Any) -> MetricGate:
    source = {"task": "tides", "metric": "acc"}
    return MetricGate.model_validate({"name": "tides", "source": source, "greater_is_better": greater} | asked)


@pytest.mark.parametrize(
    ("asked", "child", "parent", "threshold", "passed"),
    [
        ({"threshold": 0.5}, 0.5, None, 0.5, True),
        ({"threshold": 0.5}, 0.49, None, 0.5, False),
        ({"threshold": 0.5}, 0.5, 0.9, 0.5, True),
        ({"threshold": 9.0, "greater": False}, 9.0, None, 9.0, True),
        ({"threshold": 9.0, "greater": False}, 9.1, None, 9.0, False),
        # 0.1 + 0.02 is more than 0.12 in floating point.
        ({"min_absolute_change": 0.02}, 0.12, 0.1, 0.12, True),
        ({"min_absolute_change": 0.02}, 0.11, 0.1, 0.12, False),
        ({"min_absolute_change": -0.02}, 0.48, 0.5, 0.48, True),
        ({"min_absolute_change": -0.02}, 0.47, 0.5, 0.48, False),
        ({"min_absolute_change": 2.0, "greater": False}, 8.0, 10.0, 8.0, True),
        ({"min_absolute_change": 2.0, "greater": False}, 8.1, 10.0, 8.0, False),
        ({"min_relative_change": 0.1}, 0.55, 0.5, 0.55, True),
        ({"min_relative_change": 0.1}, 0.54, 0.5, 0.55, False),
        ({"min_relative_change": 0.1, "greater": False}, 9.0, 10.0, 9.0, True),
        ({"min_relative_change": 0.1, "greater": False}, 9.1, 10.0, 9.0, False),
        # The share is of the magnitude, so that the check points the right way below 0.
        ({"min_relative_change": 0.5}, -1.0, -2.0, -1.0, True),
        ({"min_relative_change": 0.5}, -1.1, -2.0, -1.0, False),
        # No share of 0 can be asked: any gain is enough, a tie is none.
        ({"min_relative_change": 0.1}, 0.01, 0.0, 0.0, True),
        ({"min_relative_change": 0.1}, 0.0, 0.0, 0.0, False),
        ({"min_relative_change": 0.0}, 0.0, 0.0, 0.0, True),
        # The strictest of several.
        ({"threshold": 0.3, "min_absolute_change": 0.2, "min_relative_change": 0.1}, 0.69, 0.5, 0.7, False),
        ({"threshold": 0.8, "min_absolute_change": 0.2}, 0.75, 0.5, 0.8, False),
        ({"threshold": 8.0, "min_absolute_change": 1.0, "greater": False}, 8.5, 10.0, 8.0, False),
    ],
)
def test_thresholds(asked: dict, child: float, parent: float | None, threshold: float, passed: bool) -> None:
    found = hold(gate(**asked), SuiteMetric(child, 0.05, 40), None if parent is None else SuiteMetric(parent))
    assert found.passed is passed and found.applicable
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    assert (found.name, found.value, found.parent_value, found.n) == ("tides", child, parent, 40)
    assert f"acc of tides {child:.4f} ± 0.0500 over 40 documents" in found.detail


@pytest.mark.parametrize(
    ("asked", "child", "parent", "said"),
    [
        ({"threshold": 0.0}, None, SuiteMetric(0.5), "was not measured"),
        ({"threshold": 0.0}, SuiteMetric(math.nan, remark="no metric 'acc'"), None, "no metric 'acc'"),
        ({"threshold": 0.0}, SuiteMetric(math.inf), None, "inf"),
        ({"threshold": 0.0}, SuiteMetric(0.9, greater_is_better=False), None, "better where it is less"),
        (
            {"threshold": 1.0, "greater": False},
            SuiteMetric(0.1, greater_is_better=True),
            None,
            "better where it is greater",
        ),
        ({"min_absolute_change": -1.0}, SuiteMetric(0.9), None, "no figure of a parent"),
        (
            {"min_relative_change": -1.0},
            SuiteMetric(0.9),
            SuiteMetric(math.nan, remark="no task"),
            "of the parent: no task",
        ),
    ],
)
def test_it_fails_closed(
    asked: dict, child: SuiteMetric | None, parent: SuiteMetric | None, said: str, tally: Tally
) -> None:
    found = hold(gate(**asked), child, parent)
    tally("T13, metrics that are missing or no numbers", tried=1, failed_closed=not found.passed)
    assert found.applicable and not found.passed and found.value is None
    assert said in found.detail


def test_a_parent_without_a_figure_does_not_matter_to_a_plain_threshold() -> None:
    found = hold(gate(threshold=0.5), SuiteMetric(0.5), SuiteMetric(math.nan))
    assert found.passed and found.parent_value is None


def decided(figures: dict[str, SuiteMetric], **asked: Any) -> GateReport:
    gates = Gates(metrics=[gate(**asked)])
    child = Measurements({"Luna-G000": (1.0,) * 40}, (1.0,) * 40, suites=figures)
    return decide(gates, child, Measurements(child.recall, (0.0,) * 40, suites={"tides": SuiteMetric(0.5)}), [])


@pytest.mark.parametrize(("value", "passed"), [(0.6, True), (0.4, False)])
def test_a_metric_gate_decides_beside_the_four(value: float, passed: bool) -> None:
    report = decided({"tides": SuiteMetric(value, n=40)}, min_absolute_change=0.05)
    assert tuple(result.name for result in report.results) == (*GATES, "tides")
    assert report.passed is passed and report.failed == (() if passed else ("tides",))
    assert {name: figure for name, figure in report.metrics().items() if "metrics" in name} == {
        "gate.metrics.tides": value,
        "gate.metrics.tides.parent": 0.5,
        "gate.metrics.tides.threshold": 0.55,
    }
    assert gate_table(report)[-1].startswith(f"| tides | {'passed' if passed else 'failed'} | {value} | 0.55 | 0.5 |")
    assert GateReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_gate_that_was_not_measured_fails() -> None:
    assert decided({}, threshold=0.0).failed == ("tides",)


def test_a_report_without_a_gate_that_was_asked_for_has_not_passed() -> None:
    report = decided({"tides": SuiteMetric(0.6)}, threshold=0.5)
    assert report.passed
    assert not replace(report, results=report.results[:4]).passed
    *four, tides = report.results
    assert not replace(report, results=(tides, *four)).passed
    more = GateResult("more", True, True, 1.0, 0.0, None, 1, "")
    assert replace(report, results=(*report.results, more)).passed
    assert not replace(report, results=(*report.results, replace(more, passed=False))).passed
