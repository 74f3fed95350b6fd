"""The runs of a home: how far each came, what ended it, and what can be read of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ladder.errors import NotFound, RunError, UsageError
from ladder.registry import family_lock
from ladder.registry.runs import RunState
from ladder.report.console import Console
from ladder.run.recovery import failure_noted
from ladder.setup import Run
from ladder.verbs.runs import RunEntry, log_text, run_called, runs_of, runs_text
from tests.report.test_lineage import generation

LATER = datetime(2030, 1, 1, tzinfo=UTC)


class Store:
    """Of a registry what ``runs_of`` asks: G001 was recorded, and the run of G003 failed."""

    def generations(self, family: str) -> list[Any]:
        return [replace(generation(1, {}, "recall"), manifest_digest="1" * 64)] if family == "Luna" else []

    def run_state(self, run_id: str) -> RunState | None:
        reasons = {"failed": "teacher 1 died; 6 times in a row"}
        return RunState("RUNNING", reasons.get(run_id, ""), {"training_params.steps": "40"}) if run_id != "?" else None

    def find(self, ref: str) -> Any:
        return generation(1, {})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a run for each way to end, written in this order."""

    def run(name: str, *files: str, **notes: Any) -> None:
        folder = tmp_path / "runs" / name
        for place, file in enumerate(["run.json", *files]):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(notes) if not place else "written")
        for path in [folder, *folder.rglob("*")]:
            os.utime(path, (run.time, run.time))  # type: ignore[attr-defined]
        run.time += 3600  # type: ignore[attr-defined]

    run.time = 1_000_000_000.0  # type: ignore[attr-defined]
    run("Luna-G001/1111111111111111", marks={"40": {"seconds": 9.5, "tokens": 1000}}, seconds=9.5)
    run("Luna-G002/2222222222222222", "dreams.jsonl", mlflow_run="open")
    run("Luna-G003/3333333333333333", "checkpoints/step-000020/state.json", mlflow_run="failed")
    run("Luna-G003/3434343434343434", "candidate/model.safetensors", mlflow_run="?")
    run("Luna-G004/4444444444444444", "candidate/ladder/report.json", mlflow_run="open")
    law = {"law": "max_kl", "found": "a text of a row", "where": "step 7"}
    run("Luna-G005/5555555555555555", halted=law)
    run("Vega-G000/6666666666666666", "error.log", "checkpoints/step-000010/state.json")
    return tmp_path


def entries(home: Path, family: str | None = None) -> list[RunEntry]:
    return runs_of(cast(Any, Store()), home, family)


def test_each_run_says_how_far_it_came_and_what_ended_it(home: Path) -> None:
    told = {entry.name[:12]: (entry.state, entry.said) for entry in entries(home)}
    goes_on = "the same `ladder evolve` goes on"
    assert told == {
        "Luna-G001/11": ("decided", "REJECTED as Luna-G001, failed recall"),
        "Luna-G002/22": ("cut off", f"before its first checkpoint, its dreams written; {goes_on}"),
        "Luna-G003/33": ("failed", "at step 20 of 40: teacher 1 died; 6 times in a row"),
        "Luna-G003/34": ("cut off", f"trained, not examined; {goes_on}"),
        "Luna-G004/44": ("cut off", f"examined, not recorded; {goes_on}"),
        "Luna-G005/55": ("halted", "law max_kl at step 7; the same manifest does not go on"),
        "Vega-G000/66": ("cut off", f"at step 10 with an unexpected error, see its log; {goes_on}"),
    }
    assert [entry.child for entry in entries(home, "Vega")] == ["Vega-G000"]
    lines = runs_text(entries(home), LATER).split("\n")
    assert len(lines) == 8 and "days ago" in lines[1] and "a text of a row" not in "".join(lines)


def test_the_newest_run_of_a_family_whose_lock_is_held_is_at_work(home: Path) -> None:
    with family_lock(home, "Luna", "evolve"):
        running = [entry.name for entry in entries(home) if entry.state == "running"]
    assert running == ["Luna-G005/5555555555555555"]


def test_a_run_is_called_by_its_name_its_child_or_its_generation(home: Path) -> None:
    found, store = entries(home), cast(Any, Store())
    assert run_called(found, "Luna-G003", store).manifest.startswith("34")
    assert run_called(found, "Luna-G003/33", store).manifest.startswith("33")
    assert run_called(found, "1111111", store).child == "Luna-G001"
    with pytest.raises(UsageError, match="may be Luna-G003/3333333333333333, Luna-G003/3434343434343434"):
        run_called(found, "Luna-G003/3", store)
    with pytest.raises(NotFound, match="no run is called Luna-G009/1"):
        run_called(found, "Luna-G009/1", store)


def test_a_run_without_a_log_tells_its_notes_and_its_traceback(home: Path) -> None:
    found = entries(home)
    assert "checkpoint of step 40: 10 s and 1,000 tokens in all" in log_text(found[0])
    assert log_text(found[-1]).endswith("error.log\nwritten")


def test_what_is_said_of_a_run_and_what_ends_it_goes_into_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request: Any = SimpleNamespace(digest="d" * 64)
    run = Run(request, cast(Any, None), {}, tmp_path / "runs" / "Luna-G007" / ("d" * 16))
    console = Console(quiet=True)
    context: Any = SimpleNamespace(console=console, registry=None)
    with pytest.raises(RunError), failure_noted(run, context):
        console.say("exam: 3 questions")
        raise RunError("the \x1b[2J end", remedy="mend it")
    console.say("of the next run")
    log = run.folder / "run.log"
    assert log.stat().st_mode & 0o777 == 0o600 and capsys.readouterr().err == ""
    (entry,) = runs_of(None, tmp_path)
    text = log_text(entry)
    assert "manifest dddddddddddddddd, on from step 0" in text and "exam: 3 questions" in text
    assert "failed: the \\x1b[2J end (mend it)" in text and "next run" not in text
