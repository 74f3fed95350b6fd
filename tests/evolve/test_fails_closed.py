"""Gates fail closed in whole runs: what keeps a child from being judged, or from being better, leaves HEAD where it is
and is said. The same causes for the decision alone are in ``tests/gates/test_decision.py``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ladder import spine
from ladder.errors import ActorDied
from ladder.planning import prepare
from ladder.run import examine as examination
from ladder.setup import exam
from ladder.setup.suites import Suites
from tests.evolve.conftest import LENIENT
from tests.tally import Tally

pytestmark = pytest.mark.long
Patch = pytest.MonkeyPatch


def weights_with_nan(patch: Patch) -> None:
    """One weight of the candidate is none any more when the exam begins."""
    examine = spine.examine

    def spoilt(run: Any, *others: Any) -> None:
        file = run.candidate / "model.safetensors"
        weights = load_file(file)
        next(iter(weights.values())).view(-1)[0] = math.nan
        save_file(weights, file, metadata={"format": "pt"})
        examine(run, *others)

    patch.setattr(spine, "examine", spoilt)


def score_of_nan(patch: Patch) -> None:
    """What the child's first own probe counts is no number; the parent is measured second."""
    measure, first = exam.measure, iter([True])

    def spoilt(*arguments: Any) -> Any:
        found = measure(*arguments)
        return replace(found, generalize=(math.nan, *found.generalize[1:])) if next(first, False) else found

    patch.setattr(exam, "measure", spoilt)


def nobody_measures(patch: Patch) -> None:
    """The suite gives no figure."""
    patch.setattr("ladder.manifest.plugins.find_spec", lambda name: object())
    patch.setattr(prepare, "check_suites", lambda request: None)
    patch.setattr(examination, "measure_suites", lambda run, work: Suites())


def evaluator_that_dies(patch: Patch) -> None:
    """Whenever it is asked."""

    def fetch(*_: Any) -> Any:
        raise ActorDied("an actor died: the evaluator crashed")

    patch.setattr(examination, "fetch", fetch)


def nothing(patch: Patch) -> None:
    """The manifest is enough."""


UNMEASURED = {"name": "cats", "source": {"task": "cats", "metric": "acc"}, "greater_is_better": True, "threshold": 0.0}
BETTER = {**LENIENT, "generalize": {"min_gain": 0.0}}

CAUSES: dict[str, tuple[Callable[[Patch], None], dict[str, Any], str, str]] = {
    "NaN in the weights": (weights_with_nan, {}, "FAILED", "holds numbers that are not finite"),
    "NaN in a figure": (score_of_nan, {}, "generalize", "one of the child's figures is nan"),
    "a missing metric": (nobody_measures, {"gates": {**LENIENT, "metrics": [UNMEASURED]}}, "cats", "was not measured"),
    "an empty set of probes": (nothing, {"data": {"probes": None}, "gates": BETTER}, "generalize", "no probes"),
    "a crash of the evaluator": (evaluator_that_dies, {}, "FAILED", "the evaluator crashed; 6 times in a row"),
    "a tie": (
        nothing,
        {"gates": BETTER, "training_params": {"lr": 1e-12}},
        "generalize",
        "a gain above 0 beyond doubt",
    ),
}
"""How it comes about, what the manifest says besides, the gate that fails or FAILED, and what is said."""


@pytest.mark.parametrize("cause", CAUSES)
def test_head_stays_and_the_verdict_says_why(
    copy_of: Callable[[], Any], monkeypatch: Patch, tally: Tally, cause: str
) -> None:
    bring_about, sections, gate, said = CAUSES[cause]
    tally("T13, gates in whole runs", tried=1)
    family = copy_of()
    before = family.registry.history("Toy")
    path = family.manifest(3, "supervised_fine_tuning", parent=2, **sections)
    with monkeypatch.context() as patch:
        bring_about(patch)
        (outcome,) = family.evolve(path)
    assert outcome.verdict == ("FAILED" if gate == "FAILED" else "REJECTED"), outcome.detail
    assert said in (outcome.detail if gate == "FAILED" else why(family, gate))
    assert family.registry.head("Toy").ref == "Toy-G002" and family.registry.verify("Toy") == []
    assert [event.kind for event in family.registry.history("Toy")[len(before) :]] in ([], ["reject"])
    tally("T13, gates in whole runs", failed_closed=1)


def why(family: Any, gate: str) -> str:
    """What the report of the rejected child says about the gate that failed alone."""
    child = family.registry.find("Toy-G003")
    assert child.failed_gates == (gate,)
    report = json.loads((family.registry.materialize(child) / "ladder" / "report.json").read_text(encoding="utf-8"))
    (detail,) = [result["detail"] for result in report["gates"]["results"] if result["name"] == gate]
    return str(detail)


def test_the_same_child_passes_where_nothing_happens(copy_of: Callable[[], Any]) -> None:
    """The control."""
    family = copy_of()
    (outcome,) = family.evolve(family.manifest(3, "supervised_fine_tuning", parent=2))
    assert outcome.verdict == "PROMOTED", outcome.detail
