"""Two folders are one model where they load as one, however their files were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.models.digest import folder_digest
from ladder.models.intake import normal_digest
from ladder.models.load import load_model


@pytest.fixture
def folder(narrow_parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(narrow_parent, tmp_path / "model"))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def widen(folder: Path) -> None:
    load_model(folder).save_pretrained(folder)


def older(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, folder / "model.safetensors")


def shards(folder: Path) -> None:
    model = load_model(folder, "bfloat16")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")


def short_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key in ("attention_bias", "mlp_bias", "rms_norm_eps", "initializer_range", "dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(
        json.dumps(config | {"torch_dtype": "float16", "auto_map": {"AutoModel": "a.B"}})
    )


def old_template(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    change(folder / "tokenizer_config.json", chat_template=template)


def old_merges(folder: Path) -> None:
    """Older files hold the merges as words with a space between them."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("write", [widen, older, shards, short_config, old_template, old_merges])
def test_the_same_model_written_otherwise(folder: Path, narrow_parent: Path, write: Any) -> None:
    write(folder)
    assert normal_digest(folder) == normal_digest(narrow_parent)
    if write in (widen, older, short_config, old_merges):
        assert folder_digest(folder) != folder_digest(narrow_parent), "otherwise nothing was shown"


def one_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] *= 1.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_epsilon(folder: Path) -> None:
    change(folder / "config.json", rms_norm_eps=1e-3)


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def other_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer.json", normalizer={"type": "Lowercase"})


@pytest.mark.parametrize("write", [one_number, other_epsilon, other_template, other_tokenizer])
def test_another_model(folder: Path, narrow_parent: Path, write: Any) -> None:
    write(folder)
    assert normal_digest(folder) != normal_digest(narrow_parent)


def test_rounding_makes_another_model(parent: Path, narrow_parent: Path) -> None:
    assert normal_digest(parent) != normal_digest(narrow_parent)
