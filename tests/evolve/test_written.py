"""A student that writes while it trains, with actors: what the run leaves and shows, and that deaths change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder.setup.written import READS
from tests.evolve.test_deaths import killed_at
from tests.evolve.test_plan import planned
from tests.tally import Tally

ASKED = {"rounds": 3, "count": 10, "max_new_tokens": 6}


def child(family: Any, recipe: str = "self_distillation", steps: int = 8, **sections: Any) -> Path:
    params = {"recipe": recipe, "written": ASKED, "steps": steps, "batch_size": 9, "lr": 0.003}
    path: Path = family.manifest(
        3,
        "teacher_student_distillation",
        parent=2,
        training_params=params,
        stabilizers={"dreams": False},
        data={"packing": True},
        **sections,
    )
    return path


def run_of(family: Any) -> Path:
    (folder,) = (family.home / "runs" / "Toy-G003").iterdir()
    return folder


def texts(family: Any) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((run_of(family) / "written").iterdir())}


def test_a_run_writes_scores_and_says_so(copy_of: Any) -> None:
    """With the base shared between student and teacher, as LoRA's are. Checkpoints come at other steps than rounds."""
    toy = copy_of()
    path = child(toy, student={"adapter": {"r": 2, "alpha": 4}})
    plan = planned(toy, path)
    assert plan["writing"] == {"rounds": 3, "texts": 10, "max_new_tokens": 6}
    assert plan["price"]["written"] == 30 and plan["price"]["phases"]["writing"] > 0
    assert any("self_distillation needs a parent that can use" in warning for warning in plan["warnings"])
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    notes = json.loads((run_of(toy) / "run.json").read_text())
    assert [notes["written"][number]["step"] for number in "123"] == [0, 2, 5]
    assert {len(text.splitlines()) for text in texts(toy).values()} == {10}
    alone, shown = notes["demonstrated"]
    told = any("the parent reads an answer" in text for text in notes["warnings"])
    assert told == (shown > READS * alone)
    stored = toy.registry.materialize(toy.registry.head("Toy")) / "ladder"
    page, report = (stored / "report.html").read_text(), json.loads((stored / "report.json").read_text())
    assert "30 texts in 3 rounds" in page and "once the parent has read it" in page
    assert report["training"]["written"] == notes["written"]
    routes = toy.registry.step_metrics(notes["mlflow_run"], "route/")
    assert len(routes["written"]) == 8 and all(share > 0 for _, share in routes["written"])
    # What the parent is asked is counted anew in each round.
    assert notes["usage"]["wire_bytes"] == pytest.approx(plan["price"]["wire_bytes"], rel=0.35)


@pytest.mark.long
def test_deaths_around_a_round_change_nothing(
    copy_of: Any, take_actors: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Rounds begin with steps 0, 4 and 8, checkpoints lie elsewhere; the fourth report is the last of its round."""
    whole, struck = copy_of("whole"), copy_of("struck")
    sections = {"runtime": {"checkpoint_every": 3, "threads": 1, "devices": {"student": "cpu", "teacher1": "cpu"}}}
    (before,) = whole.evolve(child(whole, "on_policy_kd", 12, **sections))
    take_actors()
    killed = killed_at(monkeypatch, {4: "student", 7: "student", 10: "teacher"})
    (after,) = struck.evolve(child(struck, "on_policy_kd", 12, **sections))
    assert killed == ["student", "student", "teacher"]
    assert (after.verdict, before.verdict) == ("PROMOTED", "PROMOTED"), after.detail
    assert texts(struck) == texts(whole)
    first, second = whole.registry.head("Toy"), struck.registry.head("Toy")
    tally("SIGKILL of actors of a student that writes", actors_killed=3, the_same_digest=first.digest == second.digest)
    assert first.digest == second.digest


@pytest.mark.long
def test_two_ranks_write_what_one_wrote(copy_of: Any, take_actors: Any) -> None:
    """The first rank writes, and both are sent it. Rounding of their gradients is theirs, so only the first round is
    the same."""
    one, two = copy_of("one"), copy_of("two")
    one.evolve(child(one, "on_policy_kd"))
    take_actors()
    (outcome,) = two.evolve(child(two, "on_policy_kd", runtime={"student": {"ranks": 2}}))
    assert outcome.verdict == "PROMOTED", outcome.detail
    assert texts(one)["round-1.jsonl"] == texts(two)["round-1.jsonl"] and len(texts(two)) == 3
