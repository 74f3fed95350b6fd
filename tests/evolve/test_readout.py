"""A generation is read, its child is held to what moved inside, and both are told of wherever figures are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from ladder.cli import app
from ladder.concepts.vectors import Facts, Vectors
from ladder.errors import LadderError
from ladder.verbs.compare import reevaluate
from tests.answers import result_of
from tests.evolve.conftest import COLOURS, LENIENT, THINGS

SETTINGS = ("road", "field", "harbour")


def write_corpus(folder: Path) -> Path:
    """Two concepts in three settings."""
    words = {"dark": COLOURS[3], "bright": COLOURS[4], "baseline": "there"}
    for setting in SETTINGS:
        for concept, word in words.items():
            path = folder / "paired" / setting / f"{concept}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n---\n".join(f"The {thing} of the {setting} is {word}." for thing in THINGS[:3]))
    return folder


def test_a_child_that_moved_inside_is_rejected(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    corpus, vectors = write_corpus(toy.folder / "corpus"), toy.folder / "vectors"
    told = ["concepts", "fit", "Toy@HEAD", str(corpus), "--out", str(vectors), "--home", str(toy.home), "--json"]
    fitted = result_of(CliRunner().invoke(app, told).stdout, "concepts fit")
    assert [one["name"] for one in fitted["quality"]["concepts"]] == ["bright", "dark"]
    tone = {"reference": "parent", "measure": "readout", "readout": {"vectors": "vectors", "limits": {"dark": 40.0}}}
    gates = LENIENT | {"tone": tone | {"readout": tone["readout"] | {"max_shift": 0.001}}}
    push = {"vectors": "vectors", "limit": 0.001, "rows": 9}
    told = {"gates": gates, "training_params": {"lr": 0.03}, "laws": {"max_push": push}}
    path = toy.manifest(3, "supervised_fine_tuning", parent=2, **told)
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "REJECTED" and outcome.detail.startswith("failed tone, laws;")
    child = toy.registry.find("Toy-G003")
    assert child.metrics["readout.dark.low"] < child.metrics["readout.dark"] < child.metrics["readout.dark.high"]
    sidecars = toy.registry.sidecars(child)
    (bright, dark) = json.loads((sidecars / "report.json").read_text())["gates"]["shifts"]
    assert (bright["concept"], bright["limit"], dark["limit"], bright["n"]) == ("bright", 0.001, 40.0, 10)
    assert bright["value"] == child.metrics["readout.bright"] and (bright["low"] > 0 or bright["high"] < 0)
    assert "bright" in (sidecars / "report.html").read_text()
    report = json.loads((sidecars / "report.json").read_text())["gates"]
    (law,) = [one for one in report["laws"] if one["name"] == "max_push"]
    assert law["n"] == 5 + 8 and law["violations"] == len(report["violations"]) > 0  # Every second row, and dreams.
    assert {one["where"] for one in report["violations"]} <= {"rows", "dreams"}
    for file in vectors.iterdir():
        file.unlink()  # What the exam reads is kept with the child.
    again = reevaluate(toy.registry, child)
    assert [one.value for one in again.report.shifts] == [bright["value"], dark["value"]]


def test_vectors_that_do_not_fit_are_refused_before_training(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    tone = {"reference": "parent", "measure": "readout", "readout": {"vectors": "vectors"}}
    path = toy.manifest(3, "supervised_fine_tuning", parent=2, gates=LENIENT | {"tone": tone})
    printed = CliRunner().invoke(app, ["plan", str(path), "--home", str(toy.home)])
    assert isinstance(printed.exception, LadderError) and "concepts fit REF CORPUS --out" in str(printed.exception)
    vectors = Vectors(("calm",), {0: torch.ones(1, 8)}, Facts("m", "c"))
    vectors.save(toy.folder / "vectors")
    (outcome,) = toy.evolve(path)
    assert (
        outcome.verdict == "FAILED" and "vectors of width 8, and this model's hidden states have 32" in outcome.detail
    )
    readout = tone["readout"] | {"layers": [3]}
    (outcome,) = toy.evolve(
        toy.manifest(3, "supervised_fine_tuning", parent=2, gates=LENIENT | {"tone": tone | {"readout": readout}})
    )
    assert outcome.verdict == "FAILED" and "gates.tone.readout.layers" in outcome.detail
