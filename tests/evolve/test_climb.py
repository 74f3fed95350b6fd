"""A toy family from genesis to distillation, and what the registry holds then."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from tests.tally import Tally


def test_every_age_is_promoted_and_head_is_the_last(climbed: Any) -> None:
    generations = climbed.registry.generations("Toy")
    assert [(known.ref, str(known.verdict), known.is_head) for known in generations] == [
        ("Toy-G000", "PROMOTED", False),
        ("Toy-G001", "PROMOTED", False),
        ("Toy-G002", "PROMOTED", True),
    ]
    assert [known.parent for known in generations] == [None, generations[0].digest, generations[1].digest]
    assert generations[2].grandparent == generations[0].digest


def test_a_second_run_trains_nothing_and_adds_nothing(climbed: Any) -> None:
    before = climbed.registry.history("Toy")
    outcomes = climbed.evolve()
    assert [outcome.trained for outcome in outcomes] == [False] * 3
    assert climbed.registry.history("Toy") == before
    assert climbed.registry.verify("Toy") == []


def test_the_exam_grows_by_each_ancestors_probes(climbed: Any) -> None:
    registry = climbed.registry
    folder = registry.materialize(registry.head("Toy"))
    report = json.loads((folder / "ladder" / "report.json").read_text())
    recall = next(result for result in report["gates"]["results"] if result["name"] == "recall")
    assert recall["n"] == 20
    assert {"gate.recall.Toy-G000", "gate.recall.Toy-G001"} <= set(registry.head("Toy").metrics)


def test_what_a_child_leaves_behind(climbed: Any) -> None:
    registry = climbed.registry
    folder = registry.materialize(registry.head("Toy"))
    left = {path.name for path in (folder / "ladder").iterdir()}
    documents = {"manifest.json", "report.json", "report.html", "README.md"}
    documents |= {"gates.png", "training.png", "teachers.png"}
    assert left == documents | {"replay.jsonl", "probes.jsonl", "dreams.jsonl", "rows.sha256"}
    page = (folder / "ladder" / "report.html").read_text()
    took = dict(re.findall("<dt>([^<]+)</dt><dd>(?:<[^>]+>)?([^<]+)", page))
    assert {"training", "examination", "seconds a step", "signals received", "peak memory, student"} <= took.keys()
    assert all(re.match("[0-9.]+ (seconds|minutes)", took[name]) for name in ("training", "examination"))
    assert registry.head("Toy").created.strftime("%Y-%m-%d") in took["decided"] and took["began"] <= took["decided"]
    assert re.search("(ce|kd) [0-9.]+ at first, [0-9.]+ at last", page), "the curves of the training"
    dreams = [json.loads(line) for line in (folder / "ladder" / "dreams.jsonl").read_text().splitlines()]
    assert {dream["teacher"] for dream in dreams} == {1} and len(dreams) == 16
    for file in ("replay.jsonl", "rows.sha256"):
        assert len((folder / "ladder" / file).read_text().splitlines()) == 10


def test_a_lora_child_ships_merged_weights_and_its_adapter(climbed: Any) -> None:
    from peft import PeftModel

    from ladder.models.load import load_model

    registry = climbed.registry
    child = registry.head("Toy")
    folder = registry.materialize(child)
    ids = torch.arange(12).reshape(1, 12)
    merged = load_model(folder)(input_ids=ids).logits
    base = load_model(registry.materialize(registry.find("Toy-G001")))
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()(input_ids=ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=1e-5)
    assert child.base_digest == child.parent and child.adapter_digest


def test_mlflow_and_an_export_answer_alike(climbed: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    from transformers import AutoModelForCausalLM

    from ladder.verbs.export import export_generation

    registry = climbed.registry
    # MLflow writes the address into the environment; this puts it back, or later tests would use this store.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    mlflow.set_tracking_uri(registry.tracking_uri)
    pipeline = mlflow.transformers.load_model("models:/Toy@HEAD")
    exported = export_generation(registry, registry.head("Toy"), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(exported).eval()
    ids = pipeline.tokenizer("The apple is", return_tensors="pt").input_ids
    torch.testing.assert_close(pipeline.model(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    assert (exported / "README.md").read_text().startswith("---")


def test_teachers_are_proved_frozen(climbed: Any, tally: Tally) -> None:
    (notes,) = climbed.home.glob("runs/Toy-G002/*/run.json")
    frozen = json.loads(notes.read_text())["frozen"]
    unchanged = sum(before == after for before, after in frozen.values())
    tally("T9, digests of teachers before and after", teachers=len(frozen), unchanged=unchanged)
    assert sorted(frozen) == ["1", "2"]
    assert all(before == after for before, after in frozen.values())
