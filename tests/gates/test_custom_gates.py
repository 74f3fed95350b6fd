"""Gates of other distributions: found by entry point, refused where they are absent, never passed where they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import GateError, ManifestError
from ladder.exam import Exam
from ladder.exam.exam import Answers
from ladder.gates import GateReport, GateResult, Measurements, decide
from ladder.gates.decision import custom_gate, evaluate_custom_gates
from ladder.manifest.plugins import custom_gate_problems
from ladder.manifest.schema import Gates, Manifest

MODULE = """
from ladder.gates import GateResult

def result(passed, value=1.0, **more):
    return GateResult("", passed, True, value, 2.0, None, 3, "as it said", **more)

def brief(exam, child, parent):
    longest = max(map(len, child.sampled))
    before = max(map(len, parent.sampled)) if parent else None
    return GateResult("another name", longest <= 4, True, float(longest), 4.0, before, len(child.sampled), "characters")

def breaks(exam, child, parent):
    raise KeyError("sampled")

def true(exam, child, parent):
    return True

def truthy(exam, child, parent):
    return result(1)

def nan(exam, child, parent):
    return result(True, float("nan"))

def odd(exam, child, parent):
    return result(True, object())

number = 3
"""
NAMES = ("brief", "breaks", "true", "truthy", "nan", "odd", "number", "absent", "recall", "metrics", "stories")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a gate of each kind."""
    distribution = tmp_path / "gatekeepers-1.4.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: gatekeepers\nVersion: 1.4\n")
    lines = [f"{name} = gates_of_a_test:{name}" for name in NAMES]
    (distribution / "entry_points.txt").write_text("\n".join(["[ladder.gates]", *lines]))
    (tmp_path / "gates_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def answers(*sampled: str) -> Answers:
    return Answers({}, (), (), sampled, "d")


def judged(name: str, *sampled: str, parent: Answers | None = None) -> GateResult:
    return evaluate_custom_gates([name], Exam(), answers(*sampled), parent)[0]


def test_a_gate_sees_both_and_answers_under_its_own_name() -> None:
    found = judged("brief", "one", "four", parent=answers("seven"))
    assert found == GateResult("brief", True, True, 4.0, 4.0, 5, 2, "characters")
    assert not judged("brief", "seven").passed


@pytest.mark.parametrize("name", ["breaks", "true", "truthy", "nan", "odd"])
def test_a_gate_that_fails_is_named_and_never_passes(name: str) -> None:
    with pytest.raises(GateError) as caught:
        judged(name, "fine")
    assert caught.value.where == f"gates.custom {name}"


@pytest.mark.parametrize("name", ["number", "absent", "unknown"])
def test_what_is_no_gate_cannot_be_loaded(name: str) -> None:
    with pytest.raises(ManifestError, match=name):
        custom_gate(name)


def report(custom: list[GateResult], **gates: Any) -> GateReport:
    """A report in which all else passes."""
    asked = Gates.model_validate({"custom": ["brief"], "generalize": {"min_gain": -1.0}, **gates})
    return decide(asked, Measurements({}, (), None, 0), None, (), custom=custom)


def test_it_can_reject_and_its_figure_is_reported() -> None:
    good = judged("brief", "one")
    assert report([good]).passed and report([good]).metrics()["gate.metrics.brief"] == 3.0
    bad = report([judged("brief", "seven")])
    assert not bad.passed and bad.failed == ("brief",)
    assert GateReport.from_dict(bad.to_dict()) == bad


def test_one_that_was_not_examined_fails() -> None:
    """And so does a report from which it was taken out."""
    assert report([]).failed == ("brief",)
    assert report([judged("brief", "one")] * 2).failed == ("brief",)
    whole = report([judged("brief", "one")])
    assert not replace(whole, results=whole.results[:-1]).passed


@pytest.mark.parametrize(
    ("gates", "problem"),
    [
        ({"custom": ["brief", "true"]}, None),
        ({"custom": ["unknown"]}, "'unknown' is installed 0 times"),
        ({"custom": ["brief", "brief"]}, "'brief' is named 2 times"),
        ({"custom": ["recall"]}, "'recall' is a gate of ladder's own"),
        ({"custom": ["laws"]}, "'laws' is a gate of ladder's own"),
        ({"custom": ["metrics"]}, "'metrics' is a gate of ladder's own"),
        (
            {
                "custom": ["stories"],
                "metrics": [
                    {
                        "name": "stories",
                        "source": {"task": "t", "metric": "acc"},
                        "greater_is_better": True,
                        "threshold": 0.5,
                    }
                ],
            },
            "'stories' is a gate of ladder's own",
        ),
    ],
)
def test_a_manifest_may_only_name_what_is_there(gates: dict[str, Any], problem: str | None) -> None:
    request = {"child_gen": "Luna-G000", "training_method": "pretraining"}
    found = custom_gate_problems(Manifest.model_validate({"evolution_request": request, "gates": gates}))
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0].message
