"""Cache keys of teachers that are models are what they were: what earlier runs stored is found again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ladder.teachers import Kind
from ladder.teachers.cache import CacheKey
from ladder.teachers.wire import Truncation

CUT = Truncation(8, 2.0, 300, (3, 7))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose every byte stands here, so that its digests are known for good."""
    folder = tmp_path_factory.mktemp("written")
    save_file({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 3}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}}))
    return folder


@pytest.mark.parametrize(
    ("wire", "dtype", "cut", "name"),
    [
        ("hidden", "float32", None, "cacec67dbd9a4fbcdaba59aa5df3e1a9"),
        ("logits", "bfloat16 on a GPU", None, "b06c5c4b839cbed87e6443625f824034"),
        ("topk", "float32", CUT, "0feda49190a2d0ffda9f44e857e28907"),
    ],
)
def test_the_key_of_a_model_is_what_it_was(
    written: Path, wire: Kind, dtype: str, cut: Truncation | None, name: str
) -> None:
    key = CacheKey.of(written, wire, dtype, cut)
    assert key.name == name
    assert set(json.loads(key.text)) == {"teacher", "tokenizer", "wire", "dtype", "truncation"}


def test_what_a_key_says_of_top_k_is_what_it_said() -> None:
    assert json.loads(CacheKey("a", "b", "topk", "float32", CUT).text)["truncation"] == {
        "k": 8,
        "temperature": 2.0,
        "vocabulary": 300,
        "taboo_ids": [3, 7],
    }
