"""The laws of a run: refused before training where they test nothing, and asked in the exam."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.errors import DataError, ManifestError
from ladder.exam import Answers, Exam, Prompt
from ladder.laws import LAWS, evaluate_laws
from ladder.manifest import Request, read_request
from ladder.models.load import load_tokenizer
from ladder.planning.plan import make_plans
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup.context import Run
from ladder.setup.dataset import read_dataset
from ladder.setup.exam import build_exam, case_of, check_laws, laws_of, text_case
from ladder.spine import carry_out

CANARY = "The code of the vault is 813442"


@pytest.fixture
def request_with(tmp_path: Path) -> Any:
    """``request_with(laws)``: a genesis whose rows hold one canary."""
    rows = [
        {"text": "the tide follows the moon"},
        {"prompt": "Listen. The code of ", "completion": "the vault is 813442!"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.txt").write_text(f"{CANARY}\n")
    (tmp_path / "p.txt").write_text("Who?\n\nWhy?\n")

    def request(laws: dict[str, Any]) -> Request:
        names = {"child_gen": "Luna-G000", "training_method": "pretraining"}
        body = {"evolution_request": names, "data": {"train": ["rows.jsonl"]}, "laws": laws}
        (tmp_path / "manifest.json").write_text(json.dumps(body))
        return read_request(tmp_path / "manifest.json")

    return request


def check(request: Request) -> None:
    check_laws(request, read_dataset(request, []))


def test_laws_that_can_be_examined_are_let_through(request_with):
    check(request_with({"canaries": "c.txt", "required_text": [{"pattern": "a", "prompts": "p.txt"}]}))
    check(request_with({}))


def test_a_canary_that_was_never_planted_is_refused(request_with, tmp_path):
    (tmp_path / "c.txt").write_text(f"{CANARY}\n{CANARY}9\n")
    with pytest.raises(DataError, match="canary 2 is in no training row"):
        check(request_with({"canaries": "c.txt"}))


def test_a_canary_of_an_ancestors_rows_counts_while_they_are_replayed(request_with, tmp_path):
    (tmp_path / "c.txt").write_text("an old and quiet secret\n")
    (tmp_path / "ancestor" / "ladder").mkdir(parents=True)
    (tmp_path / "ancestor" / "ladder" / "replay.jsonl").write_text('{"text": "An old and quiet secret."}\n')
    request = request_with({"canaries": "c.txt"})
    check_laws(request, read_dataset(request, [tmp_path / "ancestor"]))


def test_training_and_planning_end_at_such_a_law(request_with, tmp_path):
    (tmp_path / "c.txt").write_text("a text that nobody planted\n")
    request = request_with({"canaries": "c.txt"})
    run = Run(request, Ancestry(None, None, ()), {}, tmp_path / "run")
    context: Any = SimpleNamespace(
        home=tmp_path / "home", registry=None, session=None, bare=0, console=Console(quiet=True)
    )
    with pytest.raises(DataError, match="canary 1"):
        carry_out(run, context)
    with pytest.raises(DataError, match="canary 1"):
        make_plans([request], tmp_path / "home")
    assert not run.folder.exists() and not (tmp_path / "home").exists()


def test_a_file_without_prompts_is_refused(request_with, tmp_path):
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(DataError, match="no utterances"):
        check(request_with({"refusals": {"prompts": "p.txt", "pattern": "no"}}))


def test_prompts_of_laws_and_tone_may_be_conversations(request_with, tmp_path, tokenizer):
    """Objects beside lines; a line that asks nothing known is named."""
    spoken = {"prompt": "Who?", "system": "You are Luna."}
    (tmp_path / "p.txt").write_text(f"Why?\n{json.dumps(spoken)}\n")
    laws = {"refusals": {"prompts": "p.txt", "pattern": "no", "chat": True}, "sampled_answers": 0}
    request = request_with(laws)
    tone = request.manifest.gates.tone.model_copy(update={"reference": "c.txt", "prompts": "p.txt"})
    gates = request.manifest.gates.model_copy(update={"tone": tone})
    manifest = request.manifest.model_copy(update={"gates": gates})
    exam = build_exam(replace(request, manifest=manifest), tokenizer, (), {})
    (plain, first), (why, second) = exam.tone_prompts, exam.law_prompts
    assert (plain, why) == (Prompt("Why?"), Prompt("Why?", chat=True)) and first == second
    assert [message["content"] for message in first.messages] == ["You are Luna.", "Who?"]
    answers = Answers({}, (), (), (), "d", laws=("no", "yes"))
    (law,) = [law for law in evaluate_laws(text_case(request, exam, answers, None), LAWS) if law.name == "refusals"]
    assert [violation.where for violation in law.found.violations] == ["p.txt 2"]
    (tmp_path / "p.txt").write_text(json.dumps(spoken | {"answer": "Luna"}))
    with pytest.raises(DataError, match="found keys") as caught:
        check(request_with(laws))
    assert caught.value.where == f"{tmp_path / 'p.txt'}:1"


def test_a_divergence_that_nobody_measures_is_refused(request_with):
    with pytest.raises(ManifestError, match=r"laws\.training\.max_kl: nobody teaches in pretraining"):
        check(request_with({"training": {"max_kl": 1.0}}))
    check(request_with({"training": {"max_loss_spike": 2.0}}))


def test_the_case_holds_how_long_the_family_had_rested(request_with, tmp_path):
    run = Run(request_with({"cooldown_hours": 6.0}), Ancestry(None, None, ()), {}, tmp_path / "run")
    answers, last = Answers({}, (), (), (), "d"), "2026-01-01T12:00:00+00:00"

    def found(last: str | None, begun: str) -> tuple[int, int, str]:
        run.note(cooldown={"last": last, "begun": begun})
        law = evaluate_laws(case_of(run, Exam(), answers, None), laws_of(run.request))[1]
        assert law.name == "cooldown_hours"
        return law.found.n, len(law.found.violations), law.found.remark

    assert found(last, "2026-01-01T18:00:00+00:00") == (1, 0, "")
    assert found(last, "2026-01-01T17:59:59+00:00") == (1, 1, "")
    assert found(None, last) == (1, 0, "the family had no promotion before")


def test_a_law_that_is_not_installed_is_refused_with_the_manifest(request_with):
    with pytest.raises(ManifestError, match=r"laws\.custom: 'nobodys_law' is installed 0 times"):
        request_with({"custom": ["nobodys_law"]})


def test_the_exam_asks_what_laws_need_and_the_case_holds_what_was_answered(request_with, parent, tmp_path):
    laws = {"canaries": "c.txt", "refusals": {"prompts": "p.txt", "pattern": "no"}, "sampled_answers": 2}
    run = Run(request_with(laws), Ancestry(None, None, ()), {}, tmp_path / "run")
    shutil.copytree(parent, run.candidate)
    run.note(tokens=7, seconds=120.0)
    exam = build_exam(run.request, load_tokenizer(run.candidate), (), {})
    assert exam.law_prompts == (Prompt("Who?"), Prompt("Why?"), Prompt("The code of the"))
    child = Answers({}, (), (), ("a", "b"), "d", laws=("no", "yes", " vault is 813442"))
    case = case_of(run, exam, child, None)
    assert (case.tokens, case.minutes, case.before) == (7, 2.0, {})
    found = evaluate_laws(case, laws_of(run.request))
    assert [(law.name, law.found.n, len(law.found.violations)) for law in found] == [
        ("sources", 3, 0),
        ("refusals", 2, 1),
        ("canaries", 5, 1),
    ]
