"""How far weights moved, layer by layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ladder.verbs.compare import Moved, moved

BEFORE = {
    "model.embed_tokens.weight": torch.ones(4, 2),
    "model.layers.0.self_attn.q_proj.weight": torch.full((2, 2), 3.0),
    "model.layers.0.mlp.weight": torch.full((2, 2), 4.0),
    "model.layers.10.mlp.weight": torch.ones(3),
    "lm_head.weight": torch.zeros(2),
}


def folder(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


def test_a_layers_change_is_relative_to_what_was_there(tmp_path: Path) -> None:
    """Norm 10 of eight weights, of which four move by 0.5: norm 1."""
    after = BEFORE | {"model.layers.0.mlp.weight": torch.full((2, 2), 4.5), "lm_head.weight": torch.ones(2)}
    found = {one.name: one for one in moved(folder(tmp_path / "a", BEFORE), folder(tmp_path / "b", after))}
    assert found["model.layers.0"] == Moved("model.layers.0", pytest.approx(0.1), 8)
    assert found["model.layers.10"] == Moved("model.layers.10", 0.0, 3)
    assert found["model.embed_tokens"].relative == 0.0
    # Nothing was there before.
    assert found["lm_head"].relative == 1.0


def test_another_shape_has_no_figure(tmp_path: Path) -> None:
    after = BEFORE | {"model.embed_tokens.weight": torch.ones(5, 2), "extra.weight": torch.ones(1)}
    del after["lm_head.weight"]
    found = {one.name: one for one in moved(folder(tmp_path / "a", BEFORE), folder(tmp_path / "b", after))}
    assert [found[name].relative for name in ("model.embed_tokens", "extra", "lm_head")] == [None, None, None]
    assert found["model.embed_tokens"].numbers == 10


def test_halves_are_compared_in_full_precision(tmp_path: Path) -> None:
    before, after = ({"w": torch.full((1000,), value, dtype=torch.bfloat16)} for value in (300.0, 302.0))
    (found,) = moved(folder(tmp_path / "a", before), folder(tmp_path / "b", after))
    assert found.relative == pytest.approx(2 / 300)
