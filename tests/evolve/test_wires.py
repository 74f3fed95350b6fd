"""What the manifest says about the wire reaches the teachers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ladder.teachers.cache import DiskCache


def test_truncated_signals_of_two_teachers_train_a_child_and_stay_in_the_home(
    ray_session: None, toy: Any, parent: Path, grandparent: Path
) -> None:
    path = toy.manifest(
        11,
        "teacher_student_distillation",
        parent=10,
        request={"grandparent_gen": "Toy-G009"},
        teachers={"teacher1": {"path": str(parent)}, "teacher2": {"path": str(grandparent)}},
        stabilizers={"token_masking": True, "taboo_token_ids": [250]},
        runtime={"wire": "topk", "top_k": 7, "signal_cache_gib": 0.5},
    )
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    folders = sorted((toy.home / "cache" / "signals").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert list(folder.glob("*.safetensors")) and not list(folder.glob(".*"))
        rows = next(iter(_entries(folder).values()))
        assert rows["ids"].shape[1] == rows["values"].shape[1] == 7
        assert not (rows["ids"] == 250).any()


@pytest.mark.long
def test_replicas_of_teachers_train_the_child_that_one_of_each_trains(
    ray_session: Any, toy: Any, tmp_path: Path, parent: Path, grandparent: Path
) -> None:
    """Dreams, signals, caches and the digests of frozen teachers go over all of them; only sums may be rounded
    otherwise."""
    weights, notes, dreams = [], [], []
    for replicas in (1, 2):
        own = type(toy)(tmp_path / str(replicas))
        own.folder.mkdir()
        path = own.manifest(
            11,
            "teacher_student_distillation",
            parent=10,
            request={"grandparent_gen": "Toy-G009"},
            teachers={"teacher1": {"path": str(parent)}, "teacher2": {"path": str(grandparent)}},
            stabilizers={"dreams": {"teacher": "both", "count": 150, "max_new_tokens": 8}},
            runtime={"teachers": {"replicas": replicas}, "signal_cache": "memory"},
        )
        (outcome,) = own.evolve(path)
        assert outcome.verdict == "PROMOTED", outcome.detail
        folder = own.registry.materialize(own.registry.head("Toy"))
        weights.append(load_file(folder / "model.safetensors"))
        (run,) = own.home.glob("runs/Toy-G011/*/run.json")
        notes.append(json.loads(run.read_text()))
        dreams.append((folder / "ladder" / "dreams.jsonl").read_text())
    one, two = weights
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    assert dreams[0] == dreams[1] and notes[0]["frozen"] == notes[1]["frozen"]
    assert [noted["replicas"] for noted in notes] == [{"1": 1, "2": 1}, {"1": 2, "2": 2}]
    alone, shared = (noted["usage"] for noted in notes)
    for name in ("hits", "misses", "wire_bytes", "cache_bytes"):
        assert alone[name] == shared[name] > 0, name
    assert set(shared["memory_bytes"]) == {"student", "teacher1", "teacher1.1", "teacher2", "teacher2.1"}
    ray_session.dismiss()  # Nobody else here has replicas.


def _entries(folder: Path) -> Any:
    from safetensors import safe_open

    with safe_open(next(folder.glob("*.safetensors")), framework="np") as shard:
        key = shard.metadata()["key"]
    cache = DiskCache(folder, key, 0)
    found = cache.get(list(cache._index))
    assert found and cache.statistics.refused == 0
    return found


def test_heads_that_cannot_be_trusted_are_told_of_and_a_child_is_trained_without_them(
    ray_session: None, toy: Any, parent: Path, grandparent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("ladder.report.console.Console.say", lambda console, text: told.append(text))
    path = toy.manifest(
        11,
        "teacher_student_distillation",
        parent=10,
        request={"grandparent_gen": "Toy-G009"},
        teachers={
            "teacher1": {"path": str(_scaled(parent, tmp_path / "parent"))},
            "teacher2": {"path": str(grandparent)},
        },
        data={"packing": True},
        runtime={"signal_cache_gib": 0.5},
    )
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    (run,) = (toy.home / "runs" / "Toy-G011").glob("*/run.json")
    warnings = json.loads(run.read_text())["warnings"]
    assert [text.partition(",")[0] for text in warnings] == [
        "teacher 1 sends its logits",
        "the student learns through its logits",
    ]
    assert [text for text in told if text.startswith("warning")] == [f"warning: {text}" for text in warnings]
    folders = sorted((toy.home / "cache" / "signals").iterdir())
    widths = {next(iter(_entries(folder).values()))["values"].shape[1] for folder in folders}
    assert widths == {300, 32}


def _scaled(folder: Path, copy: Path) -> Path:
    """A model whose config names a logit scale that the model does not apply."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"logits_scaling": 4.0}))
    return copy
