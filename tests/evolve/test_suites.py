"""A gate on a task of lm-evaluation-harness, in a whole run: the real harness inside the evaluator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def gate(name: str, **thresholds: float) -> dict[str, Any]:
    source = {"task": "cats", "metric": "acc", "include_path": "suites"}
    return {"name": name, "source": source, "greater_is_better": True, **thresholds}


@pytest.mark.long
def test_a_suite_decides_beside_the_four_gates(copy_of: Any, cats_task: Callable[[Path], None]) -> None:
    pytest.importorskip("lm_eval", reason="the extra `suites` is not installed")
    family = copy_of()
    cats_task(family.folder / "suites")
    asked = [gate("any", threshold=0.0), gate("never", threshold=1.1)]
    lenient = {"recall": {"max_drop": 1.0}, "generalize": {"min_gain": -1.0}, "decoding": {"max_new_tokens": 8}}
    path = family.manifest(3, "teacher_student_distillation", parent=2, gates={**lenient, "metrics": asked})
    (outcome,) = family.evolve(path)
    assert outcome.verdict == "REJECTED" and outcome.detail.startswith("failed never;")
    generation = family.registry.find(outcome.ref)
    assert generation.failed_gates == ("never",)
    assert generation.metrics["gate.metrics.any"] in (0.0, 1 / 3, 2 / 3, 1.0)
    report = json.loads((family.registry.materialize(generation) / "ladder" / "report.json").read_text("utf-8"))
    assert [result["name"] for result in report["gates"]["results"]][-2:] == ["any", "never"]
    assert family.registry.head("Toy").ref == "Toy-G002"
