"""What fades is rehearsed more often and dreamt by the newest generation that still knows it; who has nothing to say is
not run."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.manifest import Manifest
from ladder.setup.rehearsal import RehearsalPlan, Standings, plan_rehearsal, rehearsal_of, standings_of

LINE = ["G0", "G1", "G2", "G3"]
FADED = {
    "G0": {"G0": 0.95, "G1": 0.97, "G2": 0.93, "G3": 0.6},
    "G1": {"G1": 1.0, "G2": 0.7, "G3": 0.75},
    "G2": {"G2": 0.5, "G3": 0.52},
    "G3": {"G3": 1.0},
}


def manifest(others: int = 0, dreams: Any = None, **rehearsal: Any) -> Manifest:
    listed = [{"name": f"old{n}", "kind": "generation", "generation": f"A-G{n:03}"} for n in range(others)]
    request = {"child_gen": "A-G004", "parent_gen": "A-G003", "training_method": "teacher_student_distillation"}
    body = {
        "evolution_request": request,
        "data": {"train": ["rows.jsonl"]},
        "teachers": {"others": listed},
        "stabilizers": {"rehearsal": rehearsal, "dreams": dreams or {"count": 8}},
    }
    return Manifest.model_validate(body)


def planned(known: Standings, named: dict[str, int] | None = None, others: int = 0, **rehearsal: Any) -> RehearsalPlan:
    return plan_rehearsal(manifest(others, **rehearsal), LINE, known, named or {}, LINE)


def test_a_lesson_is_taken_once_more_for_each_tolerance_that_is_lost() -> None:
    plan = planned(FADED, shares="fading")
    # 0.37, 0.25, nothing and nothing below the best; four times is the most.
    assert plan.times == [4, 4, 1, 1] and plan.dreamers == [1, 1, 1, 1] and plan.older == {}
    assert planned(FADED, shares="fading", most=6).times == [6, 6, 1, 1]
    assert planned(FADED, shares="fading", most=9, tolerance=0.1).times == [4, 3, 1, 1]
    assert planned(FADED, older_teachers=2).times == [1, 1, 1, 1]


def test_the_newest_that_still_knows_dreams_of_it() -> None:
    """0.93 is within the tolerance of 0.97, so G2 knows G0's lesson as well as G1 does; only G1 knows its own."""
    plan = planned({"G0": FADED["G0"]}, older_teachers=1)
    assert plan.dreamers == [3, 1, 1, 1] and plan.older == {3: "G2"}


def test_no_more_teachers_than_know_what_fades() -> None:
    plan = planned(FADED, older_teachers=3)
    assert plan.older == {3: "G1"} and plan.dreamers == [3, 3, 1, 1], "it knows both, so nobody else is run"


def test_several_teachers_have_a_lesson_each_and_one_has_the_greatest_loss() -> None:
    """G1 brings back 0.2 of its own lesson, G2 0.35 of its own."""
    apart = {"G1": FADED["G1"], "G2": {"G2": 0.9, "G3": 0.5}}
    plan = planned(apart, older_teachers=2)
    assert plan.older == {3: "G2", 4: "G1"} and plan.dreamers == [1, 4, 3, 1]
    plan = planned(apart, older_teachers=1)
    assert plan.older == {3: "G2"} and plan.dreamers == [1, 1, 3, 1]


def test_numbers_are_those_of_the_run() -> None:
    apart = {"G1": FADED["G1"], "G2": {"G2": 0.9, "G3": 0.5}}
    assert planned(apart, {"G2": 2}, older_teachers=2).older == {2: "G2", 3: "G1"}
    assert planned(apart, {"G1": 4}, others=2, older_teachers=2).older == {5: "G2", 4: "G1"}


@pytest.mark.parametrize(
    "known", [{}, {"G0": {"G3": 0.2}}, {"G0": {"G1": 0.9}}, {"G0": {"G0": 0.9, "G3": 0.86}}], ids=str
)
def test_nothing_that_is_not_known_to_fade_is_anything_special(known: Standings) -> None:
    plan = planned(known, shares="fading", older_teachers=3)
    assert plan.dreamers == plan.times == [1, 1, 1, 1] and plan.older == {} and plan.told() == []


def test_only_lessons_that_dreams_can_begin_with_have_a_dreamer() -> None:
    some = plan_rehearsal(manifest(older_teachers=2), LINE, FADED, {}, ["G1"])
    assert some.dreamers == [1, 3, 1, 1] and some.older == {3: "G1"}
    start = {"prompts": "start", "count": 8}
    assert plan_rehearsal(manifest(dreams=start, shares="fading"), LINE, FADED, {}, LINE).times == [4, 4, 1, 1]
    assert plan_rehearsal(manifest(dreams=start, older_teachers=2), LINE, FADED, {}, LINE).older == {}


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = planned(FADED, shares="fading", older_teachers=2)
    assert RehearsalPlan.from_dict(plan.to_dict()) == plan
    assert plan.told()[0] == "G0 fell from 0.97 to 0.60, its rows taken 4 times, dreamt by G1"


def report(own: float | None, **kept: tuple[float, float | None]) -> dict[str, Any]:
    """A stored report: the child's and the parent's accuracy on each ancestor's probes."""
    results = [{"name": "recall", "value": 0.1}, {"name": "generalize", "value": own}]
    ancestors = {name: {"child": child, "parent": parent} for name, (child, parent) in kept.items()}
    return {"gates": {"results": results, "per_ancestor": ancestors}}


def test_reports_say_who_knew_what() -> None:
    """A generation without a report is known from its child's, and its own report counts more."""
    reports = {
        "G1": report(1.0, G0=(0.9, 0.8)),
        "G2": report(None, G0=(0.7, 0.85), G1=(0.6, None), gone=(1.0, 1.0)),
    }
    assert standings_of(["G0", "G1", "G2"], reports) == {
        "G0": {"G0": 0.8, "G1": 0.9, "G2": 0.7},
        "G1": {"G1": 1.0, "G2": 0.6},
        "G2": {},
    }


def test_a_manifest_that_asks_for_nothing_looks_at_nothing() -> None:
    assert rehearsal_of(manifest(), {"G0": None}, {}) == RehearsalPlan()  # type: ignore[dict-item]
