"""Why a generation is what it is: each failed gate with what it takes, what waits, and the manifests beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ladder.gates import decide
from ladder.gates.measurements import Measurements
from ladder.laws import Findings, LawResult, Violation
from ladder.manifest.schema import Gates, ToneGate
from ladder.planning.space import Space
from ladder.registry import Event, Generation, Verdict
from ladder.report.text import Reason, tree_text
from ladder.verbs.why import Known, branches_of, branches_text, reasons_of
from tests.report.conftest import verdict
from tests.report.test_lineage import generation

PARENT = generation(1, {}, is_head=True)


def child(*failed: str, attempt: int = 1, **known: Any) -> Generation:
    made = generation(
        2, {}, *failed, parent=PARENT.digest, parent_name="Luna-G001", attempt=attempt, version=attempt + 2
    )
    return replace(made, **known)


def document(steps: int, **stabilizers: Any) -> dict[str, Any]:
    request = {"child_gen": "Luna-G002", "note": f"with {steps} steps", "parent_gen": "Luna-G001"}
    tree = {"evolution_request": request, "training_params": {"steps": steps}, "stabilizers": stabilizers}
    return {"manifest": tree | {"runtime": {"in_flight": steps}}, "files": {"data/a.jsonl": "a" * 64}}


def found(reason: Reason, *path: str) -> Reason:
    """The node below by the names of the nodes on the way."""
    for name in path:
        (reason,) = (one for one in reason.because if one.name == name)
    return reason


def test_a_failed_gate_says_its_figures_and_how_many_answers_are_missing() -> None:
    known = Known(child("recall"), report={"gates": verdict(forgot=True).to_dict()})
    tree = reasons_of(known, None, [], [], PARENT)
    assert tree.state == "REJECTED" and tree.said == "failed recall; HEAD is Luna-G001"
    assert tree.because[0].name == "recall"  # What failed comes first.
    recall = found(tree, "recall")
    assert recall.figures["margin"] == pytest.approx(-0.45) and recall.figures["n"] == 80
    assert "forgotten" not in recall.said and "was forgotten" in found(recall, "recall of Luna-G001").said
    assert found(recall, "to pass").figures["answers"] == {"Luna-G001": 36}
    assert found(recall, "to pass").said == "36 more right answers to the same probes: 36 of Luna-G001"
    assert found(tree, "gates", "generalize").said.endswith("at least 0.0200 needed; 0.9800 to spare")


def test_broken_laws_and_a_drift_say_what_they_need() -> None:
    broken = LawResult(
        "forbidden_text", "text", 1, {}, Findings(3, (Violation("forbidden_text", "a curse", "probe 3"),))
    )
    gates = Gates(tone=ToneGate(reference="voice.txt"))
    report = decide(gates, Measurements(generalize=(1.0,), tone_drift=0.3, tone_n=9), None, [broken])
    tree = reasons_of(Known(child("tone", "laws"), report={"gates": report.to_dict()}), None, [], [], None)
    assert found(tree, "laws", "forbidden_text").said == "at probe 3: a curse"
    assert found(tree, "laws", "to pass").said == "no violation at all"
    assert found(tree, "tone", "to pass").said == "the figure must fall by 0.2500 to 0.0500"


def test_a_full_model_is_told_with_its_figures() -> None:
    known = Known(child("recall"), report={"gates": verdict(forgot=True).to_dict()})
    space = Space(0.25, 0.5, 0.25, ("Luna-G001", "Luna-G002"))
    told = found(reasons_of(known, None, [], [], PARENT, space), "space")
    assert told.state == "full" and "25% of a lesson remains" in told.said and told.figures["lost"] == 0.25
    assert "space" not in [one.name for one in reasons_of(known, None, [], [], PARENT).because]


def test_the_sibling_whose_manifest_differs_least_is_told_first_without_what_is_not_learned_from() -> None:
    reports = {name: {"gates": verdict(forgot).to_dict()} for name, forgot in (("bad", True), ("good", False))}
    mine = Known(child("recall"), document(200, dreams=False), reports["bad"])
    near = Known(child(attempt=2), document(400, dreams=False), reports["good"])
    far = Known(child(attempt=3), document(400, dreams=True), reports["good"])
    like = Known(child("recall", attempt=4), document(200, dreams=False), reports["bad"])
    tree = found(reasons_of(mine, None, [like, far, near], [], PARENT), "manifest")
    assert [one.name for one in tree.because] == ["Luna-G002.2", "Luna-G002.3", "Luna-G002.4"]
    first = tree.because[0]
    assert first.figures["differences"] == {"training_params.steps": [400, 200]}
    assert first.said == "began from the same parent; recall 1 there, 0.5 here; the manifests differ in one field"
    assert "no proof" in tree.said


@pytest.mark.parametrize(
    ("known", "head", "said"),
    [
        ({"approvals": 2}, PARENT, "1 of 2 different keys approved: ladder promote Luna-G002 --key NAME"),
        (
            {},
            generation(5, {}, is_head=True),
            "it began from Luna-G001, and HEAD is Luna-G005: ladder promote Luna-G002",
        ),
        ({}, PARENT, "nobody promoted it yet: ladder promote Luna-G002"),
    ],
)
def test_one_that_passed_says_what_it_waits_for(known: dict[str, Any], head: Generation, said: str) -> None:
    waiting = child(verdict=Verdict.PASSED, **known)
    event = Event(1, datetime(2024, 1, 1, tzinfo=UTC), "approve", None, "Luna-G002", "seen", key="ada")
    tree = reasons_of(Known(waiting, report={"gates": verdict().to_dict()}), None, [], [event], head)
    (waits,) = (one for one in tree.because if one.state == "waits")
    assert waits.said.startswith(said)


def test_an_imported_one_says_that_no_gate_was_held() -> None:
    tree = reasons_of(Known(PARENT), None, [], [], PARENT)
    assert tree.said == "it is HEAD" and "imported" in found(tree, "gates").said


def test_lost_gained_and_missed_answers_are_listed_and_the_rest_is_counted() -> None:
    def said(count: int, **more: str) -> list[dict[str, str]]:
        return [{"prompt": f"q{n}?", "expected": "yes", "child": "no", **more} for n in range(count)]

    beside = {"parent": "yes", "part": "Luna-G000"}
    answers = {"n": 40, "lost": 7, "gained": 1, "worst": said(7, **beside), "won": said(1, **beside)}
    missed = {"n": 8, "wrong": 6, "some": said(6)}
    report = {"gates": verdict().to_dict(), "answers": answers, "missed": missed}
    tree = reasons_of(Known(child(), report=report), None, [], [], PARENT)
    told = found(tree, "answers").because
    assert [one.state for one in told] == ["lost"] * 6 + ["gained"]
    assert told[0].said == "q0?: expected yes, was yes, is no" and told[5].name == "and 2 more"
    own = found(tree, "own probes")
    assert own.said.startswith("of its own 8 probes 6 answered wrongly") and own.because[-1].name == "and 1 more"
    assert own.because[0].said == "q0?: expected yes, said no" and len(own.figures["some"]) == 6
    # A report of a ladder from before tells neither.
    old = {"answers": {key: answers[key] for key in ("n", "lost", "gained", "worst")}}
    told = found(reasons_of(Known(child(), report=old), None, [], [], PARENT), "answers").because
    assert [one.name for one in told[-2:]] == ["and 2 more", "1"]


def test_the_tree_has_a_line_a_reason_no_escape_of_somebody_else_and_ascii_where_asked() -> None:
    tree = Reason("a", "failed", "x\x1b[2J", because=(Reason("b", because=(Reason("[bold]c"),)), Reason("d")))
    assert tree_text(tree).split("\n") == ["a failed: x\\x1b[2J", "├── b", "│   └── [bold]c", "└── d"]
    assert tree_text(tree, ascii_only=True).isascii()
    assert "\x1b[" in tree_text(tree, terminal=True)
    assert tree.to_dict()["because"][0]["because"][0]["name"] == "[bold]c"


def test_branches_show_notes_beside_outcomes_by_parent() -> None:
    root = generation(0, {}, note="the start")
    head = generation(
        1, {"gate.recall": 0.9}, parent=root.digest, parent_name="Luna-G000", is_head=True, note="keep it"
    )
    beside = generation(
        2, {"gate.recall": 0.5}, "recall", parent=root.digest, parent_name="Luna-G000", note="no dreams"
    )
    alone = generation(3, {}, "laws", parent=head.digest, parent_name="Luna-G001", note="more rows")
    found = branches_of([root, head, beside, alone])
    assert [(one.ref, one.note, one.on_line) for one in found] == [
        ("Luna-G001", "keep it", True),
        ("Luna-G002", "no dreams", False),
        ("Luna-G003", "more rows", False),
    ]
    assert branches_text(found).split("\n")[2].split()[:5] == ["Luna-G002", "Luna-G000", "REJECTED", "(recall)", "0.5"]
    assert branches_text(branches_of([root, head])).startswith("no branches")
