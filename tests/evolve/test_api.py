"""A family from Python: the calls of ``import ladder`` on a family that was evolved, and a run that is followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import ladder
from ladder.errors import NotFound
from ladder.notify import delivery
from ladder.verbs import notify
from ladder.verbs.sample import answer
from tests.receiver import receiving

PROMPT = "See how the apple looks:"


def made(toy: Any, index: int, **sections: Any) -> ladder.Manifest:
    """A manifest in code that says what the toy's file says; the file is gone."""
    path: Path = toy.manifest(index, "continual_pretraining", parent=index - 1, **sections)
    body = json.loads(path.read_text())
    path.unlink()
    return ladder.Manifest(**body)


def test_a_family_is_looked_at_and_answers(climbed: Any) -> None:
    toy = ladder.family("Toy", climbed.home)
    head = toy["HEAD"]
    assert [one.ref for one in toy] == ["Toy-G000", "Toy-G001", "Toy-G002"] and head == toy.head == toy["G002"]
    assert [one.name for one in ladder.families(climbed.home)] == ["Toy"]
    assert (
        str(toy).count("PROMOTED") == 3
        and "<- HEAD" in str(toy)
        and repr(head) == "<Generation Toy-G002 PROMOTED, HEAD>"
    )
    assert head.answer(PROMPT, max_new_tokens=8) == answer(head.folder, [PROMPT], False, 8, 0.0, 0)
    assert len(head.answer([PROMPT, "The stone is"], max_new_tokens=4)) == 2
    assert head.report.passed and [one.name for one in head.report.results] == ["recall", "generalize", "tone", "laws"]
    assert str(head.why()).startswith("Toy-G002 PROMOTED") and [event.kind for event in toy.history] == ["promote"] * 3


def test_load_gives_plain_classes_that_say_what_the_generation_says(climbed: Any) -> None:
    model, tokenizer = ladder.load("Toy@HEAD", climbed.home)
    assert type(model) is LlamaForCausalLM and isinstance(tokenizer, PreTrainedTokenizerFast)
    ids = model.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=8, do_sample=False)
    said = tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(PROMPT).strip()
    assert [said] == ladder.generation("Toy@HEAD", climbed.home).answer(PROMPT, max_new_tokens=8)


def test_gates_are_run_again_and_decide_nothing(climbed: Any) -> None:
    toy = ladder.family("Toy", climbed.home)
    again = toy["G001"].gates(against="Toy-G000")
    assert [one.value for one in again.report.results] == [one.value for one in toy["G001"].report.results]
    assert str(again).startswith("Toy-G001 against Toy-G000") and len(toy.history) == 3


def test_head_moves_back_and_forward(copy_of: Any) -> None:
    toy = ladder.family("Toy", copy_of().home)
    assert (toy.rollback(reason="a look").ref, toy.head.ref) == ("Toy-G001", "Toy-G001")
    assert toy.rollback("G000").ref == "Toy-G000" and toy.promote("G002", reason="enough").is_head
    assert [(event.kind, event.reason) for event in toy.history[3:]] == [
        ("rollback", "a look"),
        ("rollback", "rolled back from Python"),
        ("promote", "enough"),
    ]
    with pytest.raises(NotFound, match="no generation Toy-G007"):
        toy.rollback("G007")


def test_a_run_is_followed_to_its_outcome_and_webhooks_are_told(copy_of: Any, capsys: Any) -> None:
    toy = copy_of()
    events = list[ladder.Event]()
    with receiving() as receiver:
        notify.add(toy.registry, "chat", receiver.url, (), None, mlflow=False)
        (outcome,) = ladder.evolve(made(toy, 3), home=toy.home, folder=toy.folder, on_event=events.append, quiet=True)
        delivery.wait(20)
    steps = [event for event in events if isinstance(event, ladder.Step)]
    gates = [event for event in events if isinstance(event, ladder.GateResult)]
    assert (outcome.verdict, events[-1]) == ("PROMOTED", outcome) and capsys.readouterr().err == ""
    assert [(one.child, one.step, one.steps) for one in steps] == [("Toy-G003", step, 6) for step in range(1, 7)]
    assert all(one.loss > 0 and one.tokens > 0 and one.seconds > 0 for one in steps)
    assert gates == list(ladder.generation("Toy@HEAD", toy.home).report.results)
    assert ladder.Line("Toy-G003: continual_pretraining") in events
    assert receiver.texts == [
        "Toy-G003 passed its gates",
        "HEAD of Toy is Toy-G003, before it Toy-G002 (promotion: Toy-G003 passed its gates)",
    ]
    (again,) = ladder.evolve(made(toy, 3), home=toy.home, folder=toy.folder, quiet=True)
    assert (again.ref, again.trained) == ("Toy-G003", False)


def test_what_a_listener_raises_comes_out_and_the_same_call_goes_on(copy_of: Any) -> None:
    toy = copy_of()
    manifest, steps = made(toy, 3), list[int]()

    def stop(event: ladder.Event) -> None:
        if isinstance(event, ladder.Step) and event.step == 5:
            raise OSError("the plot's disk is full")

    def count(event: ladder.Event) -> None:
        steps.extend([event.step] if isinstance(event, ladder.Step) else [])

    with pytest.raises(OSError, match="the plot's disk is full"):
        ladder.evolve(manifest, home=toy.home, folder=toy.folder, on_event=stop, quiet=True)
    (outcome,) = ladder.evolve(manifest, home=toy.home, folder=toy.folder, on_event=count, quiet=True)
    assert (outcome.verdict, steps) == ("PROMOTED", [4, 5, 6])


def test_plan_prices_a_manifest_that_was_made_in_code(climbed: Any, tmp_path: Path) -> None:
    body = json.loads((climbed.folder / "001.json").read_text())
    (entry,) = ladder.plan(ladder.Manifest(**body), home=climbed.home, folder=climbed.folder)
    (written,) = ladder.plan(climbed.folder / "001.json", home=climbed.home)
    assert (entry.digest, entry.decided) == (written.digest, "Toy-G001 was PROMOTED") and str(entry).startswith(
        "Toy-G001\n"
    )
