"""What the doctor says of ladder itself, and of what a manifest would lack here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder import __version__
from ladder.verbs import doctor


def checks(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> dict[str, doctor.Check]:
    """Of a manifest with these sections; the machine itself is looked at by nobody."""
    (folder / "rows.jsonl").write_text('{"text": "a row"}\n')
    body = {
        "evolution_request": {"child_gen": "Luna-G001", "training_method": "pretraining"},
        "data": {"train": ["rows.jsonl"]},
    }
    (folder / "001.json").write_text(json.dumps(body | sections))
    for name in ("_torch", "_disk", "_shared_memory", "_store"):
        monkeypatch.setattr(doctor, name, lambda *_: doctor.Check("machine", True, ""))
    return {check.name: check for check in doctor.examine(folder / "home", [folder / "001.json"])}


def test_ladder_says_its_own_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks(tmp_path, monkeypatch)
    assert found["ladder"].found.startswith(f"{__version__} at ")
    assert found["001.json"] == doctor.Check("001.json", True, "Luna-G001: its 1 files, packages and devices are here")


def test_a_manifest_that_asks_for_a_card_that_is_not_here_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    found = checks(tmp_path, monkeypatch, runtime={"devices": {"student": "cuda"}})["001.json"]
    assert not found.ok and "student" in found.found and "cuda" in found.found


def test_a_missing_file_package_or_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (broken,) = (
        check
        for check in checks(tmp_path, monkeypatch, laws={"custom": ["polite"]}, data={"train": ["no.jsonl"]}).values()
        if not check.ok
    )
    assert "no.jsonl" in broken.found and "polite" in broken.found


def test_a_gguf_file_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    (tmp_path / "elder.gguf").mkdir()
    request = {"child_gen": "Luna-G001", "parent_gen": "Luna-G000", "training_method": "supervised_fine_tuning"}
    teacher = {"teacher1": {"gen": 0, "role": "primary", "path": "elder.gguf"}}
    found = checks(tmp_path, monkeypatch, evolution_request=request, teachers=teacher)["001.json"]
    assert not found.ok and "pip install gguf" in found.found
