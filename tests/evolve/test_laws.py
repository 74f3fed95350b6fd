"""Laws broken in real runs: what is halted, what is rejected, what waits, and that HEAD and store stay as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ladder.actors.session import fetch
from ladder.cli import main
from ladder.run import train
from tests.tally import Tally

TAUGHT = "teacher_student_distillation"
# The child begins as its parent; after the first step there always is some divergence.
STRICT = {"max_kl": 1e-9, "window": 1}


def next_child(family: Any, **sections: Any) -> Any:
    return family.manifest(3, TAUGHT, parent=2, **sections)


def untouched(family: Any, work: Callable[[], Any]) -> Any:
    """What ``work`` gives, if the registry is the same before and after."""
    before = (family.registry.generations("Toy"), family.registry.history("Toy"))
    done = work()
    assert (family.registry.generations("Toy"), family.registry.history("Toy")) == before
    assert family.registry.verify("Toy") == []
    return done


def test_a_broken_law_halts_the_run_and_nothing_moves(copy_of: Any) -> None:
    family = copy_of()
    path = next_child(family, laws={"training": STRICT, "on_broken": "halt"})
    (outcome,) = untouched(family, lambda: family.evolve(path))
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 1)
    assert "law max_kl halted the run at step 1" in outcome.detail
    (again,) = untouched(family, lambda: family.evolve(path))
    assert "law max_kl was halted before" in again.detail
    changed = next_child(family, laws={"training": {"max_kl": 1e9, "window": 1}, "on_broken": "halt"})
    (other,) = family.evolve(changed)
    assert other.verdict == "PROMOTED"


def test_without_halt_the_child_is_trained_and_rejected(copy_of: Any) -> None:
    family = copy_of()
    (outcome,) = family.evolve(next_child(family, laws={"training": STRICT}))
    assert outcome.verdict == "REJECTED" and "laws" in outcome.detail
    assert family.registry.head("Toy").ref == "Toy-G002"


def test_texts_are_read_while_it_trains(copy_of: Any) -> None:
    """What no text may hold is what every text of this family holds."""
    family = copy_of()
    laws = {"training": {"sample_every": 2}, "forbidden_text": ["[a-z]"], "on_broken": "halt"}
    (outcome,) = untouched(family, lambda: family.evolve(next_child(family, laws=laws)))
    assert "law sample_every halted the run at step 2, sampled" in outcome.detail


def test_a_run_that_would_take_too_much_is_refused(copy_of: Any) -> None:
    family = copy_of()
    path = next_child(family, budget={"max_memory_gib": 0.01})
    (outcome,) = untouched(family, lambda: family.evolve(path))
    assert outcome.verdict == "FAILED" and "budget.max_memory_gib" in outcome.detail
    assert not list(family.home.glob("runs/Toy-G003/*/checkpoints"))


def test_a_child_that_comes_too_early_is_refused(copy_of: Any) -> None:
    family = copy_of()
    (outcome,) = untouched(family, lambda: family.evolve(next_child(family, laws={"cooldown_hours": 24})))
    assert outcome.verdict == "FAILED" and "cooldown_hours" in outcome.detail


def test_two_keys_move_head(copy_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family = copy_of()
    (outcome,) = family.evolve(next_child(family, laws={"approvals": 2}))
    assert (outcome.verdict, outcome.exit_code) == ("PASSED", 4)

    def promote(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["ladder", "promote", "Toy-G003", *words, "--home", str(family.home)])
        try:
            return main()
        except SystemExit as ended:
            return int(ended.code or 0)

    assert promote() != 0
    assert promote("--key", "policy") == 4
    assert promote("--key", "policy") == 4
    assert family.registry.head("Toy").ref == "Toy-G002"
    assert promote("--key", "owner") == 0
    assert family.registry.head("Toy").ref == "Toy-G003"
    assert [event.kind for event in family.registry.history("Toy")][-2:] == ["approve", "promote"]


def test_what_a_child_learned_by_heart_is_found(copy_of: Any) -> None:
    """Text and figure laws, each broken by one child that says a private sentence and little else."""
    family, secret = copy_of(), "The grey goose hid a copper key."
    family.write("secret.jsonl", [{"text": secret}])
    (family.folder / "canaries.txt").write_text(secret + "\n", encoding="utf-8")
    path = family.manifest(
        3,
        "supervised_fine_tuning",
        parent=2,
        data={"train": ["secret.jsonl"]},
        training_params={"steps": 120, "lr": 0.01, "batch_size": 8},
        stabilizers={"ema": False, "replay_buffer": False, "dreams": False},
        gates={"decoding": {"max_new_tokens": 24}},
        laws={
            "canaries": "canaries.txt",
            "forbidden_text": ["copper"],
            "max_self_bleu": 0.0,
            "sampled_answers": 8,
            "sampled_tokens": 24,
        },
    )
    (outcome,) = family.evolve(path)
    assert outcome.verdict == "REJECTED" and "laws" in outcome.detail
    assert family.registry.head("Toy").ref == "Toy-G002"
    child = family.registry.materialize(family.registry.find(outcome.ref))
    report = (child / "ladder" / "report.json").read_text(encoding="utf-8")
    broken = {violation["law"] for violation in json.loads(report)["gates"]["violations"]}
    assert {"canaries", "forbidden_text", "max_self_bleu"} <= broken
    assert "grey goose" not in json.dumps(json.loads(report)["gates"]["violations"])


def test_a_teacher_that_moves_rejects_its_child(copy_of: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """The mutant of a training that touches its teacher: one weight of it changes while the student learns."""
    family, real = copy_of(), train.stream

    def stream(group: Any, teachers: Any, *others: Any) -> Iterator[Any]:
        for report in real(group, teachers, *others):
            if report.step == 1:
                fetch(teachers[1].actors[0].__ray_call__.remote(nudge))
            yield report

    monkeypatch.setattr(train, "stream", stream)
    devices = {"student": "cpu", "teacher1": "cpu"}
    (outcome,) = family.evolve(next_child(family, runtime={"devices": devices}))
    tally("T9, a teacher that is trained", tried=1, caught=outcome.verdict == "REJECTED")
    assert outcome.verdict == "REJECTED" and "laws" in outcome.detail
    child = family.registry.materialize(family.registry.find(outcome.ref))
    report = json.loads((child / "ladder" / "report.json").read_text(encoding="utf-8"))
    assert {violation["law"] for violation in report["gates"]["violations"]} == {"parent_unchanged"}


def nudge(actor: Any) -> None:
    """Change one weight of teacher 1."""
    with torch.no_grad(), actor.teachers[1].hosted.speaking() as model:
        next(model.parameters()).view(-1)[0] += 1.0
