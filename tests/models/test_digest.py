"""A digest is what a model is: any weight, word or template changes it, and the layout of the files does not."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError
from ladder.models.digest import (
    folder_digest,
    template_digest,
    tensors_digest,
    tensors_file_digest,
    tokenizer_digest,
    weight_files,
)
from ladder.models.load import load_model, load_tokenizer


@pytest.fixture
def folder(parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parent, tmp_path / "model"))


def edit_json(path: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_sharding_and_order_do_not_matter(folder: Path, tmp_path: Path) -> None:
    load_model(folder).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / name, tmp_path / "shards")
    assert len(weight_files(tmp_path / "shards")) > 2
    assert folder_digest(tmp_path / "shards") == folder_digest(folder)


def test_names_in_another_order_metadata_and_paths_do_not_matter(folder: Path, parent: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights, reverse=True)
    reordered = write_safetensors({name: weights[name] for name in names}, {"format": "pt", "z": "1", "a": "2"})
    (folder / "model.safetensors").write_bytes(reordered)
    edit_json(folder / "config.json", lambda config: config.update(_name_or_path="/x", transformers_version="9"))
    (folder / "README.md").write_text("a card")
    assert folder_digest(folder) == folder_digest(parent)
    assert tensors_file_digest(folder / "model.safetensors") == tensors_file_digest(parent / "model.safetensors")


def write_safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """The format by hand, because its library chooses the order itself."""
    header: dict[str, Any] = {"__metadata__": metadata}
    body = b""
    for name, value in tensors.items():
        raw = value.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body


def test_one_changed_byte_matters_wherever_it_is(folder: Path, parent: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in (start, (start + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert folder_digest(folder) != folder_digest(parent)
    path.write_bytes(whole)
    assert folder_digest(folder) == folder_digest(parent)


def test_name_dtype_and_shape_are_part_of_a_tensor() -> None:
    value = torch.arange(6, dtype=torch.int32)
    variants = [
        {"a": value},
        {"b": value},
        {"a": value.view(torch.float32)},
        {"a": value.reshape(2, 3)},
        {"a": value.reshape(3, 2)},
        {"a": value, "b": value},
    ]
    assert len({tensors_digest(variant) for variant in variants}) == len(variants)
    assert tensors_digest({"a": value, "b": value + 1}) == tensors_digest({"b": value + 1, "a": value})


def test_any_layout_in_memory_is_the_same_tensor() -> None:
    value = torch.arange(12.0).reshape(3, 4)
    assert tensors_digest({"a": value.t().contiguous().t()}) == tensors_digest({"a": value})
    assert tensors_digest({"a": value.bfloat16()}) == tensors_digest({"a": value.bfloat16().clone()})
    assert len(tensors_digest({"a": torch.tensor(1.0)})) == 64


def test_the_digest_in_memory_is_that_of_the_file(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    assert tensors_digest(weights) == tensors_file_digest(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1e-6
    assert tensors_digest(weights) != tensors_file_digest(folder / "model.safetensors")


def test_architecture_keys_matter(folder: Path, parent: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.update(rms_norm_eps=1e-3))
    assert folder_digest(folder) != folder_digest(parent)


def test_a_tokenizer_is_its_vocabulary_and_merges_and_not_how_it_was_last_used(folder: Path, parent: Path) -> None:
    used = load_tokenizer(folder)
    used(["a", "the moon"], padding="max_length", truncation=True, max_length=3)
    used.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["truncation"] and content["padding"], "the test needs a tokenizer that keeps its last use"
    assert tokenizer_digest(folder) == tokenizer_digest(parent)
    edit_json(folder / "tokenizer.json", lambda content: content["model"]["merges"].pop())
    assert tokenizer_digest(folder) != tokenizer_digest(parent)
    assert folder_digest(folder) != folder_digest(parent)


def test_a_template_matters_and_is_no_part_of_the_tokenizer(folder: Path, parent: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert tokenizer_digest(folder) == tokenizer_digest(parent)
    assert template_digest(folder) != template_digest(parent)
    assert folder_digest(folder) != folder_digest(parent)


def test_a_template_inside_the_tokenizer_config_counts_as_well(folder: Path, parent: Path) -> None:
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8")
    path.unlink()
    none = template_digest(folder)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template=template))
    assert load_tokenizer(folder).chat_template == template
    assert folder_digest(folder) == folder_digest(parent)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template=template + " "))
    assert template_digest(folder) not in (none, template_digest(parent))


def test_weights_beside_those_that_are_loaded_cannot_hide_a_change(folder: Path, parent: Path) -> None:
    original = load_file(folder / "model.safetensors")
    for decoy in ("model-00001-of-00001.safetensors", "model_original.safetensors"):
        save_file(original, folder / decoy)
    assert folder_digest(folder) == folder_digest(parent)
    changed = original | {"model.norm.weight": original["model.norm.weight"] + 1}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load_model(folder).state_dict()["model.norm.weight"], changed["model.norm.weight"])
    assert folder_digest(folder) != folder_digest(parent)


BROKEN = {
    "no weights": ("model.safetensors", None, "no model.safetensors, found"),
    "weights cut off": ("model.safetensors", lambda whole: whole[:-10], "unreadable weights"),
    "no weights in the file": ("model.safetensors", lambda whole: b"", "unreadable weights"),
    "no config": ("config.json", None, "unreadable"),
    "config cut off": ("config.json", lambda whole: whole[:-10], "unreadable"),
    "no tokenizer": ("tokenizer.json", None, "no tokenizer.json"),
    "tokenizer cut off": ("tokenizer.json", lambda whole: whole[:-10], "unreadable"),
    "tokenizer of another kind": ("tokenizer.json", lambda whole: b"[]", "found list"),
}


@pytest.mark.parametrize(("name", "change", "found"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_folder(folder: Path, name: str, change: Callable[[bytes], bytes] | None, found: str) -> None:
    path = folder / name
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=found) as caught:
        folder_digest(folder)
    assert str(folder) in str(caught.value.where)


def test_an_index_without_its_shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(ModelError, match="unreadable weights"):
        folder_digest(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        folder_digest(folder)
    with pytest.raises(ModelError, match="no such folder"):
        folder_digest(folder / "absent")


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "bool", "float8_e4m3fn"]
)
def test_a_file_is_digested_as_what_it_holds(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the disk in pieces, and not by torch."""
    values = (torch.arange(30, dtype=torch.float32) % 3).to(getattr(torch, dtype))
    tensors = {
        "b": values.reshape(5, 6),
        "a": values[:0].reshape(0, 4),
        "c": values[2].clone(),
        "d": values[:7].clone(),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt", "more": "é" * 9})
    monkeypatch.setattr("ladder.models.digest._CHUNK", 16)
    assert tensors_file_digest(tmp_path / "model.safetensors") == tensors_digest(tensors)
