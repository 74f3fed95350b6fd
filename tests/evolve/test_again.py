"""A recorded family looked at again: its gates, its pages, and two generations side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder.cli import main
from ladder.exam.exam import PromptSet
from ladder.gates import GateReport
from ladder.verbs import compare as room
from ladder.verbs.compare import difference
from tests.answers import result_of


def stored(registry: Any, ref: str) -> dict[str, Any]:
    folder = registry.materialize(registry.find(ref)) / "ladder"
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["ladder", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_gates_say_again_what_they_said(climbed: Any) -> None:
    registry = climbed.registry
    before = registry.history("Toy")
    again = room.reevaluate(registry, registry.find("Toy-G002"))
    was = GateReport.from_dict(stored(registry, "Toy-G002")["gates"])
    assert (again.child, again.against) == ("Toy-G002", "Toy-G001")
    assert again.report.results[:3] == was.results[:3]
    assert again.report.per_ancestor == was.per_ancestor
    assert registry.history("Toy") == before


def test_a_recorded_generation_is_not_asked_again(climbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own answers are known from its exam, and its parent's as well."""
    asked: list[PromptSet] = []
    really = room.ask.run_prompts

    def run_prompts(folder: Path, prompt_set: PromptSet, **options: Any) -> Any:
        asked.append(prompt_set)
        return really(folder, prompt_set, **options)

    monkeypatch.setattr(room.ask, "run_prompts", run_prompts)
    room.reevaluate(climbed.registry, climbed.registry.find("Toy-G002"))
    (child,) = asked  # Of the parent nothing is left to ask, so it is not even loaded.
    assert (child.prompts, child.probes) == ((), ()) and child.again
    asked.clear()
    room.compared(climbed.registry, climbed.registry.find("Toy-G002"), climbed.registry.find("Toy-G001"))
    assert not asked


def test_other_probes_and_another_opponent(climbed: Any, tmp_path: Path) -> None:
    probes = tmp_path / "other.jsonl"
    probes.write_text(json.dumps({"prompt": "Is it?", "answer": "red"}) + "\n")
    registry = climbed.registry
    again = room.reevaluate(registry, registry.find("Toy-G002"), registry.find("Toy-G000"), probes)
    assert (again.against, again.comparison.n) == ("Toy-G000", 1)
    assert [result.applicable for result in again.report.results] == [False, True, False, True]


def test_gates_ends_with_the_verdicts_code(
    climbed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "gates", "Toy-G002", "--home", str(climbed.home)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Toy-G002 against Toy-G001\n\npassed recall: ")
    assert "Toy-G000" in printed and "of 30 probes" in printed
    assert run(monkeypatch, "gates", "Toy-G002", "--json", "--home", str(climbed.home)) == 0
    assert result_of(capsys.readouterr().out, "gates")["gates"]["passed"] is True


def test_the_page_is_where_show_says(
    climbed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ladder", "show", "Toy-G002", "--html", "--home", str(climbed.home)])
    with pytest.raises(SystemExit):
        main()
    page = Path(capsys.readouterr().out.strip()).read_text(encoding="utf-8")
    assert "<title>Toy-G002: passed all gates</title>" in page
    assert "over 6 steps" in page


def test_two_generations_side_by_side(
    climbed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = climbed.registry
    found = difference(registry, registry.find("Toy-G001"), registry.find("Toy-G002"))
    assert found.manifest["manifest.student.adapter.r"] == (None, 2)
    assert found.metrics["gate.recall.Toy-G001"][0] is None
    frozen = {layer.name for layer in found.layers if layer.relative == 0}
    assert "model.embed_tokens" in frozen and "model.layers.0" not in frozen
    assert run(monkeypatch, "diff", "Toy-G001", "Toy-G002", "--no-answers", "--home", str(climbed.home)) == 0
    assert "model.layers.0" in capsys.readouterr().out


def test_the_files_of_an_exam_are_kept_and_no_canary(ray_session: None, toy: Any) -> None:
    voice = toy.write("voice.txt", [])
    voice.write_text("".join(f"Well now, friend, that be number {n} for ye, by my beard.\n" for n in range(40)))
    (toy.folder / "canaries.txt").write_text("The apple is blue.\n")
    toy.manifest(
        0,
        "pretraining",
        gates={"tone": {"reference": "voice.txt", "max_drift": 1.0}},
        laws={"canaries": "canaries.txt"},
    )
    toy.evolve()
    folder = toy.registry.materialize(toy.registry.find("Toy-G000")) / "ladder"
    assert [path.read_text() for path in (folder / "exam").iterdir()] == [voice.read_text()]
    again = room.reevaluate(toy.registry, toy.registry.find("Toy-G000"))
    was = GateReport.from_dict(stored(toy.registry, "Toy-G000")["gates"])
    assert again.report.results[2] == was.results[2]
