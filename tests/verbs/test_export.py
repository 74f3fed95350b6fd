"""What leaves a home: readable files, and no rows unless they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.verbs import export


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store that keeps a generation for its owner alone."""
    kept = tmp_path / "kept"
    (kept / "ladder").mkdir(parents=True)
    (kept / "adapter").mkdir()
    for name in (
        "model.safetensors",
        ".inventory.json",
        "ladder/replay.jsonl",
        "ladder/dreams.jsonl",
        "ladder/probes.jsonl",
        "adapter/README.md",
        "adapter/adapter_config.json",
    ):
        (kept / name).write_text("{}")
    card = "---\ntags:\n- generation-ladder\n---\n- rows for its descendants: a sample, in replay.jsonl"
    (kept / "ladder" / "README.md").write_text(card)
    for path in kept.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.setattr(export, "renew_folder", lambda folder: None)
    return SimpleNamespace(materialize=lambda generation: kept)


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_an_export_is_as_readable_as_what_the_user_writes(
    registry: Any, tmp_path: Path, mask: int, file: int, folder: int
) -> None:
    before = os.umask(mask)
    try:
        out = export.export_generation(registry, None, tmp_path / "out")  # type: ignore[arg-type]
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert modes == {file} and out.stat().st_mode & 0o777 == (out / "ladder").stat().st_mode & 0o777 == folder


@pytest.mark.parametrize("rows", [False, True])
def test_rows_travel_only_where_they_are_asked_for(registry: Any, tmp_path: Path, rows: bool) -> None:
    out = export.export_generation(registry, None, tmp_path / "out", rows=rows)  # type: ignore[arg-type]
    assert not (out / ".inventory.json").exists()
    assert [path.name for path in (out / "adapter").iterdir()] == ["adapter_config.json"]
    left = {path.name for path in (out / "ladder").iterdir()}
    assert left == {"probes.jsonl"} | ({"replay.jsonl", "dreams.jsonl"} if rows else set())
    assert ("left out of this export" in (out / "README.md").read_text()) is not rows
