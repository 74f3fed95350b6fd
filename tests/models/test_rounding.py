"""What is stored has the dtype of what it started as; what rounding takes of a change is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError, RunError
from ladder.models.load import load_model
from ladder.models.preflight import main_dtype, stored_bytes, stored_dtypes
from ladder.models.rounding import Rounding, as_on_disk, as_stored, check_survives

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def child(narrow_parent: Path, tmp_path: Path) -> Callable[..., Path]:
    """``child(change, shards=False)``: the parent in float32, with a change of one matrix."""

    def make(change: Callable[[torch.Tensor], torch.Tensor], **how: str) -> Path:
        model = load_model(narrow_parent)
        weight = dict(model.named_parameters())[NAME]
        weight.data = change(weight.data)
        folder = tmp_path / "child"
        model.save_pretrained(folder, **how)
        return folder

    return make


def test_a_large_change_survives(child: Callable[..., Path], narrow_parent: Path) -> None:
    folder = child(lambda weight: weight * 1.5)
    rounding = as_stored(folder, narrow_parent)
    before = load_file(narrow_parent / "model.safetensors")[NAME]
    assert rounding == Rounding("bfloat16", 1024, 1024) and rounding.share == 1.0
    after = load_file(folder / "model.safetensors")
    assert set(stored_dtypes(folder).values()) == {torch.bfloat16} == {value.dtype for value in after.values()}
    assert torch.equal(after[NAME], (before.float() * 1.5).bfloat16())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(folder).dtype == torch.float32


def test_the_share_that_survives_is_exact(child: Callable[..., Path], narrow_parent: Path) -> None:
    """bfloat16 has 8 bits: a quarter of a percent is less than half a step everywhere, 1 percent is more."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        weight = weight.clone()
        weight[:3] *= 1.001
        weight[3] *= 1.01
        return weight

    rounding = as_stored(child(change), narrow_parent)
    assert rounding == Rounding("bfloat16", 128, 32) and rounding.metrics()["rounding/kept_share"] == 0.25
    assert "bfloat16: of 128 that changed, 25.0% keep a change" in rounding.line()
    check_survives(rounding, "", "")


def test_a_change_that_vanishes_is_refused(child: Callable[..., Path], narrow_parent: Path) -> None:
    rounding = as_stored(child(lambda weight: weight * 1.001), narrow_parent)
    assert rounding == Rounding("bfloat16", 1024, 0)
    with pytest.raises(
        RunError, match=r"there: 1,024 of 1,024 weights that changed are rounded back in bfloat16.*\(do so\)"
    ):
        check_survives(rounding, "there", "do so")
    with pytest.raises(RunError, match="9,991 of 10,000"):
        check_survives(Rounding("bfloat16", 10_000, 9), "", "")
    for sound in (Rounding("bfloat16", 0, 0), Rounding("bfloat16", 10_000, 10)):
        check_survives(sound, "", "")


def test_a_weight_that_was_0_says_nothing(child: Callable[..., Path], narrow_parent: Path, tmp_path: Path) -> None:
    """Next to 0 every change survives, in the padding's row of an embedding for one."""
    start = Path(shutil.copytree(narrow_parent, tmp_path / "start"))
    weights = load_file(start / "model.safetensors")
    weights[NAME][0] = 0
    save_file(weights, start / "model.safetensors", {"format": "pt"})

    def change(weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(weight[:1], 1e-20), weight[1:] * 1.001])

    assert as_stored(child(change), start) == Rounding("bfloat16", 31 * 32, 0)


def test_a_narrower_dtype_than_the_parents_is_held_against_the_parent_in_it(
    child: Callable[..., Path], parent: Path, tmp_path: Path
) -> None:
    """What moves only because the dtype is another one is no change."""
    folder = Path(shutil.copytree(parent, tmp_path / "same"))
    assert as_stored(folder, parent, "bfloat16") == Rounding("bfloat16", 0, 0)
    assert set(stored_dtypes(folder).values()) == {torch.bfloat16}
    weights = load_file(parent / "model.safetensors")
    close = {name: value.bfloat16().float() for name, value in weights.items()}
    save_file(close, folder / "model.safetensors", {"format": "pt"})
    assert sum(int((close[name] != value).sum()) for name, value in weights.items()) > 1000
    assert getattr(as_stored(folder, parent, "bfloat16"), "kept", None) == 0


def test_a_wider_dtype_rounds_nothing(narrow_parent: Path, parent: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(narrow_parent, tmp_path / "narrow"))
    before = load_file(folder / "model.safetensors")
    assert as_stored(folder, parent) is None
    after = load_file(folder / "model.safetensors")
    assert all(
        after[name].dtype == torch.float32 and torch.equal(after[name].bfloat16(), before[name]) for name in before
    )


def test_equal_dtypes_leave_the_files_alone(parent: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(parent, tmp_path / "same"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert as_stored(folder, parent) is None
    as_on_disk(folder, parent)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_each_tensor_has_its_own(child: Callable[..., Path], narrow_parent: Path, tmp_path: Path) -> None:
    mixed = Path(shutil.copytree(narrow_parent, tmp_path / "mixed"))
    weights = load_file(mixed / "model.safetensors")
    norm = "model.norm.weight"
    save_file(weights | {norm: weights[norm].float()}, mixed / "model.safetensors", {"format": "pt"})
    folder = child(lambda weight: weight * 1.5)
    as_stored(folder, mixed)
    assert stored_dtypes(folder) == stored_dtypes(mixed) and stored_dtypes(folder)[norm] == torch.float32
    assert main_dtype(folder) == torch.bfloat16


def test_shards(child: Callable[..., Path], narrow_parent: Path) -> None:
    folder = child(lambda weight: weight * 1.5, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert as_stored(folder, narrow_parent) == Rounding("bfloat16", 1024, 1024)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    sizes = sum(value.nbytes for path in folder.glob("*.safetensors") for value in load_file(path).values())
    assert index["metadata"]["total_size"] == sizes < stored_bytes(folder)
    assert set(stored_dtypes(folder).values()) == {torch.bfloat16}
    load_model(folder)


def test_numbers_that_are_too_large(child: Callable[..., Path], narrow_parent: Path) -> None:
    with pytest.raises(ModelError, match=f"{NAME} holds numbers too large for float16"):
        as_stored(child(lambda weight: weight * 1e7), narrow_parent, "float16")


def test_a_copy_never_rounds(child: Callable[..., Path], narrow_parent: Path) -> None:
    folder = child(lambda weight: weight * 1.001)
    before = load_file(folder / "model.safetensors")
    as_on_disk(folder, narrow_parent)
    after = load_file(folder / "model.safetensors")
    assert {name for name, value in after.items() if value.dtype == torch.float32} == {NAME}
    assert all(torch.equal(after[name].float(), before[name]) for name in before)
