"""What the manifest says about the wire reaches the teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ladder.signals.disk_cache import DiskCache


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


def _entries(folder: Path) -> Any:
    from safetensors import safe_open

    with safe_open(next(folder.glob("*.safetensors")), framework="np") as shard:
        key = shard.metadata()["key"]
    cache = DiskCache(folder, key, 0)
    found = cache.get(list(cache._index))
    assert found and cache.statistics.refused == 0
    return found
