"""What would run of a manifest: decided, resumed from where, waiting for what, or refused, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import LawBroken
from ladder.manifest import Request, read_request
from ladder.registry import Verdict
from ladder.report.console import outcome_of
from ladder.report.text import Reason
from ladder.verbs.runs import RunEntry
from ladder.verbs.why import Known
from ladder.verbs.would import Found, reasons_of_manifest
from tests.report.test_lineage import generation

DECIDED = Reason("Luna-G001", "REJECTED", "failed recall")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return read_request(written(tmp_path))


def written(folder: Path, **request: Any) -> Path:
    (folder / "rows.jsonl").write_text('{"text": "a row"}\n')
    body = {"evolution_request": {"child_gen": "Luna-G001", "training_method": "pretraining"} | request}
    path = folder / "001.json"
    path.write_text(json.dumps(body | {"data": {"train": ["rows.jsonl"]}, "training_params": {"steps": 40}}))
    return path


def plan(**known: Any) -> Any:
    return SimpleNamespace(**{"ready": None, "warnings": [], "price": SimpleNamespace(seconds=120.0)} | known)


def run(request: Request, state: str, said: str, manifest: str = "") -> RunEntry:
    entry = RunEntry(
        "Luna-G001", manifest or request.digest[:16], None, state, said, 20, 40, datetime.now(UTC), 1, 2.0, Path()
    )
    return entry


def test_a_decided_one_is_skipped_and_says_why_it_was_decided(request_: Request) -> None:
    made = generation(1, {}, "recall")
    tree = reasons_of_manifest(request_, Found(decided=(made, DECIDED)))
    assert (tree.state, tree.because) == ("skipped", (DECIDED,)) and "REJECTED" in tree.said
    waits = replace(made, verdict=Verdict.PASSED)
    assert reasons_of_manifest(request_, Found(decided=(waits, DECIDED))).state == "promotes"


@pytest.mark.parametrize(
    ("state", "said", "found", "told"),
    [
        ("cut off", "at step 20 of 40; the same `ladder evolve` goes on", "resumes", "at step 20 of 40"),
        ("failed", "at step 20 of 40: no memory", "resumes", "it failed at step 20 of 40: no memory"),
        ("halted", "law max_kl at step 7", "halted", "another manifest, or other rows, begin another run"),
        ("running", "its family's evolve is at work", "running", "at work"),
    ],
)
def test_its_own_run_is_gone_on_with(request_: Request, state: str, said: str, found: str, told: str) -> None:
    tree = reasons_of_manifest(request_, Found(runs=[run(request_, state, said)], plan=plan()))
    assert tree.state == found and told in tree.said


def test_one_that_never_ran_says_what_of_its_child_is_left_from_other_manifests(request_: Request) -> None:
    other = run(request_, "cut off", "at step 20 of 40; goes on", "f" * 16)
    document = request_.document()
    before = {"manifest": document["manifest"] | {"training_params": {"steps": 80}}, "files": document["files"]}
    attempt = Known(generation(1, {}, "recall"), before)
    tree = reasons_of_manifest(request_, Found(runs=[other], attempts=[attempt], plan=plan(warnings=["few probes"])))
    assert (tree.state, tree.figures["steps"]) == ("runs", 40)
    assert [one.name for one in tree.because] == ["Luna-G001", f"Luna-G001/{'f' * 16}", "warning"]
    assert tree.because[0].figures["differences"]["training_params.steps"] == [80, 40]
    assert "not gone on with" in tree.because[1].said


def test_a_parent_in_the_way_says_why_it_is(request_: Request) -> None:
    found = Found(plan=plan(ready="its parent Luna-G000 was REJECTED"), parent=DECIDED)
    tree = reasons_of_manifest(request_, found)
    assert (tree.state, tree.said, tree.because) == ("waits", "its parent Luna-G000 was REJECTED", (DECIDED,))


def test_a_refusal_says_what_evolve_would_say(request_: Request) -> None:
    error = LawBroken("too early", where="laws.cooldown_hours", remedy="run the same command then")
    tree = reasons_of_manifest(request_, Found(refusal=error))
    assert (tree.state, tree.said) == ("refused", str(error)) and tree.figures["exit_code"] == 1


def test_the_verb_answers_for_manifests_as_json(tmp_path: Path) -> None:
    """One that runs, and one whose key is misspelt."""
    path, broken = written(tmp_path), tmp_path / "002.json"
    broken.write_text(path.read_text().replace('"steps"', '"stepps"').replace("G001", "G002"))
    done = CliRunner().invoke(app, ["why", str(path), str(broken), "--home", str(tmp_path / "home"), "--json"])
    assert done.exit_code == 0, done.output
    runs, refused = json.loads(done.stdout)["result"]["reasons"]
    assert (runs["name"], runs["state"]) == ("Luna-G001", "runs")
    assert refused["state"] == "refused" and "did you mean 'steps'?" in refused["said"]
    assert refused["name"].endswith("002.json: training_params.stepps") and refused["said"].startswith("unknown key")
    assert not (tmp_path / "home").exists()
    absent = CliRunner().invoke(app, ["why", str(tmp_path / "no.json")])
    assert "there is no such file" in str(absent.exception)


def test_a_rejected_child_names_the_verb_that_says_why() -> None:
    assert "see `ladder why Luna-G001`" in outcome_of(generation(1, {}, "recall"), trained=True).detail


def test_a_promoted_child_says_what_it_lost_and_where_that_stands() -> None:
    said = outcome_of(generation(1, {}, is_head=True), trained=True, answers={"lost": 4, "gained": 9}).detail
    assert said == "passed all gates; answers: 4 lost, 9 gained; see `ladder why Luna-G001`"
    assert outcome_of(generation(1, {}, is_head=True), trained=True).detail == "passed all gates"
