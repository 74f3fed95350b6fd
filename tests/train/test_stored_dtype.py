"""A child is stored as what it starts as is stored; arithmetic is another matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ladder.errors import RunError
from ladder.models.digest import folder_digest
from ladder.models.load import load_model
from ladder.models.preflight import stored_dtypes
from ladder.models.rounding import Rounding
from ladder.train.trainer import Trainer

LORA = {"adapter": {"r": 2, "alpha": 4}}


def finished(school: Any, folder: Path, start: Path, lr: float = 3e-3, **student: Any) -> tuple[Path, Any]:
    """The candidate after six steps from ``start``, and what became of its change."""
    manifest = school.make_manifest(student=student, lr=lr)
    trainer = Trainer(school.spec(manifest, f"run-{folder.name}", start=start, teachers={1: start, 2: start}))
    school.run(trainer, school.make_batches(manifest), range(6))
    return folder, trainer.finish(folder)


def dtypes(folder: Path) -> set[torch.dtype]:
    return set(stored_dtypes(folder).values())


@pytest.mark.parametrize("student", [{}, LORA], ids=["full", "lora"])
def test_a_child_of_a_bfloat16_parent_is_stored_in_bfloat16(
    school: Any, narrow_parent: Path, tmp_path: Path, student: dict[str, Any]
) -> None:
    narrow, rounding = finished(school, tmp_path / "narrow", narrow_parent, **student)
    wide, none = finished(school, tmp_path / "wide", narrow_parent, save_dtype="float32", **student)
    assert dtypes(narrow) == {torch.bfloat16} and dtypes(wide) == {torch.float32}
    exact = load_file(wide / "model.safetensors")
    stored = load_file(narrow / "model.safetensors")
    start = load_file(narrow_parent / "model.safetensors")
    assert all(torch.equal(stored[name], exact[name].bfloat16()) for name in stored), "rounded once, at the end"
    moved = {name: (exact[name] != start[name].float()) & (start[name] != 0) for name in exact}
    changed = sum(int(one.sum()) for one in moved.values())
    kept = sum(int(((stored[name] != start[name]) & moved[name]).sum()) for name in exact)
    assert rounding == Rounding("bfloat16", changed, kept) and 0 < kept < changed and none is None
    for name in ("LICENSE", "tokenizer.model"):
        assert (narrow / name).read_bytes() == (narrow_parent / name).read_bytes()
    assert json.loads((narrow / "config.json").read_text())["dtype"] == "bfloat16"


def test_bfloat16_arithmetic_on_a_float32_parent_stores_the_average_unrounded(
    school: Any, parent: Path, tmp_path: Path
) -> None:
    manifest = school.make_manifest(student={"dtype": "bfloat16"})
    trainer = Trainer(school.spec(manifest))
    school.run(trainer, school.make_batches(manifest), range(6))
    shadow = {name: value.clone() for name, value in trainer.ema.shadow.items()}
    assert trainer.finish(tmp_path / "child") is None and dtypes(tmp_path / "child") == {torch.float32}
    stored = dict(load_model(tmp_path / "child").named_parameters())
    assert all(torch.equal(stored[name], value) for name, value in shadow.items())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in shadow.values())


def test_an_update_that_vanishes_is_refused_before_the_exam(school: Any, narrow_parent: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="rounded back in bfloat16") as caught:
        finished(school, tmp_path / "child", narrow_parent, lr=1e-9)
    assert caught.value.where == "student.save_dtype" and "float32" in str(caught.value.remedy)
    assert not (tmp_path / "child").exists() and not list(tmp_path.glob(".child*"))
    folder, _ = finished(school, tmp_path / "wide", narrow_parent, lr=1e-9, save_dtype="float32")
    assert folder_digest(folder) != folder_digest(narrow_parent)


def test_a_float32_family_is_not_touched(school: Any, parent: Path, tmp_path: Path) -> None:
    folder, rounding = finished(school, tmp_path / "child", parent)
    assert rounding is None and dtypes(folder) == {torch.float32}


def test_what_is_asked_for_wins(school: Any, parent: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(parent, tmp_path / "parent"))
    folder, rounding = finished(school, tmp_path / "child", copy, save_dtype="float16")
    assert dtypes(folder) == {torch.float16} and rounding.dtype == "float16" and 0 < rounding.share <= 1
