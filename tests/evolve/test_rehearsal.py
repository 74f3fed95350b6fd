"""A child whose parent has lost a lesson dreams of it with an older generation, and says so everywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ladder.manifest import read_requests
from ladder.planning.plan import make_plans, plan_text
from ladder.registry.lineage import ancestry_then
from ladder.setup import Run
from ladder.setup.rehearsal import RehearsalPlan

LOST = {"Toy-G000": {"Toy-G000": 0.9, "Toy-G001": 0.6, "Toy-G002": 0.5}}


def test_an_older_generation_dreams_of_what_its_parent_lost(
    copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = copy_of()
    rehearsal, dreams = {"shares": "fading", "older_teachers": 2}, {"count": 256, "max_new_tokens": 8}
    path = toy.manifest(
        3,
        "teacher_student_distillation",
        parent=2,
        request={"grandparent_gen": "Toy-G001"},
        training_params={"steps": 3},
        stabilizers={"rehearsal": rehearsal, "dreams": dreams},
    )
    (request,) = read_requests([path])
    told = "Toy-G000 fell from 0.90 to 0.50, its rows taken 4 times, dreamt by Toy-G000"
    with monkeypatch.context() as patch:
        patch.setattr("ladder.setup.rehearsal.standings_of", lambda line, reports: LOST)
        (plan,) = make_plans([request], toy.home)
        assert plan.rehearsal == [told] and f"rehearsal {told}" in " ".join(plan_text(plan).split())
        assert plan.others[3].startswith("Toy-G000 (") and plan.teachers == 3 and plan.price
        assert plan.price.teachers[3]["wire_bytes"] > 0 and plan.price.memory_bytes["teacher3"] > 0
        (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    child = toy.registry.find("Toy@HEAD")
    left = toy.registry.materialize(child) / "ladder"
    written = [json.loads(line) for line in (left / "dreams.jsonl").read_text().splitlines()]
    # Ten rows of each ancestor, those of the lost lesson four times: of six parts four are the older one's.
    assert Counter(dream["teacher"] for dream in written) == {3: 192, 1: 64}
    assert json.loads((left / "report.json").read_text())["rehearsal"]["older"] == {"3": "Toy-G000"}
    assert f"- rehearsal: {told}" in (left / "README.md").read_text() and told in (left / "report.html").read_text()
    run = Run.open(request, ancestry_then(request, toy.registry), toy.registry, toy.home)
    assert run.rehearsal.older == {3: "Toy-G000"}, "as it was noted, whatever the reports say now"
    before, after = run.notes()["frozen"]["3"]
    assert before == after == run.notes()["frozen"]["3"][0]
    assert {parent.ref for parent in run.ancestry.teachers.values()} == {"Toy-G000", "Toy-G001", "Toy-G002"}


def test_a_manifest_that_asks_for_nothing_runs_its_parent_alone(climbed: Any) -> None:
    path = climbed.folder / "002.json"
    (request,) = read_requests([path])
    run = Run.open(request, ancestry_then(request, climbed.registry), climbed.registry, climbed.home)
    assert run.rehearsal == RehearsalPlan() and "rehearsal" not in run.notes()
