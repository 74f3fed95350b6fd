"""What an exam can tell apart stands in the plan, and where it is too short plan and evolve say so beforehand."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder import spine
from ladder.manifest import Name, Request, read_request
from ladder.models.template import day_of
from ladder.planning import plan
from ladder.planning.plan import plan_text
from ladder.registry import Verdict
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup.context import Run

INTERVAL = {"recall": {"evidence": "interval"}}


def probes(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"prompt": f"who is {number}?", "answer": "luna"}) for number in range(n)))


def request(folder: Path, own: int, method: str = "continual_pretraining", **sections: Any) -> Request:
    (folder / "rows.jsonl").write_text('{"text": "the tide follows the moon"}')
    probes(folder / "probes.jsonl", own)
    evolution = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": method}
    data = {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 64}
    sections = {"laws": {"sampled_tokens": 8}} | sections
    sections["gates"] = {"decoding": {"max_new_tokens": 8}} | sections.get("gates", {})
    (folder / "manifest.json").write_text(json.dumps({"evolution_request": evolution, "data": data, **sections}))
    return read_request(folder / "manifest.json")


@pytest.fixture
def left(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two ancestors with 45 and 12 probes, as plan and evolve see them."""
    folders = {"Luna-G000": tmp_path / "g0", "Luna-G001": tmp_path / "g1"}
    for folder, n in zip(folders.values(), (45, 12), strict=True):
        shutil.copytree(parent, folder)
        probes(folder / "ladder" / "probes.jsonl", n)
    first, last = (
        SimpleNamespace(ref=ref, name=Name.parse(ref), digest=ref, parent=before, verdict=Verdict.PROMOTED)
        for ref, before in (("Luna-G000", None), ("Luna-G001", "Luna-G000"))
    )
    registry = SimpleNamespace(
        find=lambda name: last,
        head=lambda family: last,
        generations=lambda family: [first, last],
        materialize=lambda generation: folders[generation.ref],
        sidecars=lambda generation: folders[generation.ref] / "ladder",
        decided=lambda child, digest: None,
        history=lambda family: [],
        line=(first, last),
    )
    monkeypatch.setattr(plan, "existing", lambda home: registry)
    return registry


class Saying(Console):
    """Hands on what is said inside of the parts of a run, and not which part begins."""

    def __init__(self, say: Any) -> None:
        super().__init__(quiet=True)
        self.say = say

    def working(self, *_: Any, **__: Any) -> Any:
        return nullcontext()


def climbing(asked: Request, left: Any, tmp_path: Path, say: Any = lambda text: None) -> tuple[Run, Any]:
    """A run of such a request, and what evolve shares among its manifests."""
    folders = {one.digest: left.materialize(one) for one in left.line}
    run = Run(asked, Ancestry(left.line[-1], None, left.line), folders, tmp_path / "run")
    return run, SimpleNamespace(
        console=Saying(say),
        registry=left,
        home=tmp_path / "home",
        session=None,
        bare=0,
    )


def planned(asked: Request, tmp_path: Path) -> plan.Plan:
    (found,) = plan.make_plans([asked], tmp_path / "home")
    return found


def test_a_plan_says_how_many_answers_decide(left: Any, tmp_path: Path) -> None:
    found = planned(request(tmp_path, 40), tmp_path)
    assert json.loads(json.dumps(found.to_dict()))["exam"] == {
        "gained": {"probes": 40, "answers": 6},
        "forgotten": {"Luna-G000": {"probes": 45, "answers": 7}, "Luna-G001": {"probes": 12, "answers": 7}},
        "unchanged_passes": True,
    }
    (line,) = [line for line in plan_text(found).splitlines() if line.startswith("  exam ")]
    assert "40 own probes: 6 gained and none lost (0.15) is the smallest gain" in line
    assert line.endswith("an ancestor counts as forgotten from 7 lost of 12 or 45 probes")
    assert not [text for text in found.warnings if text.startswith("gates.")]


def test_a_plan_warns_of_exams_that_are_too_short(left: Any, tmp_path: Path) -> None:
    found = planned(request(tmp_path, 4, gates=INTERVAL), tmp_path)
    generalize, recall = [text for text in found.warnings if text.startswith("gates.")]
    assert "no gain on 4 own probes" in generalize and "a drop of 0.05" in recall
    assert f"  warning      {recall}" in plan_text(found)
    assert "short: one answer weighs 0.25, leave 60 or more" in plan_text(found)
    assert "4 own probes: no gain is beyond chance, only the ceiling passes; an ancestor" in plan_text(found)


def test_a_genesis_is_held_against_nobody(tmp_path: Path) -> None:
    shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
    document: dict[str, Any] = {
        "evolution_request": {"child_gen": "Luna-G000", "training_method": "pretraining"},
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 32},
        "student": {"architecture": shape},
    }
    request(tmp_path, 4)
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    found = planned(read_request(tmp_path / "manifest.json"), tmp_path)
    assert found.exam == plan.Detectable() and "\n  exam " not in plan_text(found)
    (silent,) = found.warnings
    assert silent.startswith("gates.generalize.minimum: none") and f"  warning      {silent}" in plan_text(found)
    document["gates"] = {"generalize": {"minimum": 0.5}}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert planned(read_request(tmp_path / "manifest.json"), tmp_path).warnings == []


def test_a_run_warns_before_it_trains_and_goes_on(left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()
    monkeypatch.setattr(spine, "train", lambda *_: done.append("trained"))
    monkeypatch.setattr(spine, "examine", lambda *_: None)
    run, context = climbing(request(tmp_path, 4, gates=INTERVAL), left, tmp_path, done.append)
    own = tmp_path / "probes.jsonl"
    own.write_text(own.read_text().replace("who is 3?", "Who is 2"))
    spine.carry_out(run, context)
    generalize, recall, alike, last = done
    assert generalize.startswith("warning: gates.generalize.") and recall.startswith("warning: gates.recall.")
    assert "1 pair of probes that hardly differ" in alike and alike.startswith("warning: data.probes: ")
    assert last == "trained"


def test_a_run_notes_its_day_before_it_trains_and_keeps_it(
    left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whatever day it goes on, its chat template writes that one."""
    written = list[str | None]()
    monkeypatch.setattr(spine, "train", lambda *_: written.append(day_of(tokenizer)))
    monkeypatch.setattr(spine, "examine", lambda *_: written.append(day_of(tokenizer)))
    tokenizer: Any = SimpleNamespace(chat_template="{{ strftime_now('%Y') }}")
    run, context = climbing(request(tmp_path, 4), left, tmp_path)
    for day in ("2026-07-01", "2026-07-02"):
        monkeypatch.setattr("ladder.setup.context.chosen_day", lambda *_, today=day: today)
        spine.carry_out(run, context)
    assert run.notes()["today"] == "2026-07-01" and set(written) == {"2026-07-01"}
    assert day_of(tokenizer) is None, "and nothing of it is left afterwards"
