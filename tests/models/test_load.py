"""Loading opens safetensors and nothing else, and takes a model whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError, TokenizerMismatch
from ladder.models.digest import tokenizer_digest
from ladder.models.load import check_same_tokenizer, config_of, load_model, load_tokenizer
from ladder.models.scratch import train_tokenizer


@pytest.fixture
def folder(parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parent, tmp_path / "model"))


class Poison:
    """Unpickling this makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def poison(folder: Path, mark: Path) -> None:
    content = pickle.dumps(Poison(mark))
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin", "model.pt", "optimizer.pt"):
        (folder / name).write_bytes(content)


def test_a_model_is_loaded_for_evaluation(parent: Path) -> None:
    model = load_model(parent)
    assert not model.training and model.dtype == torch.float32
    assert load_model(parent, "bfloat16").dtype == torch.bfloat16
    weights = load_file(parent / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_poison_beside_safetensors_is_never_opened(folder: Path, tmp_path: Path) -> None:
    poison(folder, tmp_path / "opened")
    load_model(folder)
    load_tokenizer(folder)
    assert not (tmp_path / "opened").exists()
    with pytest.raises(FileExistsError):
        for _ in range(2):
            pickle.loads((folder / "pytorch_model.bin").read_bytes())


def test_a_folder_with_pickled_weights_alone_is_refused_unopened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    poison(folder, tmp_path / "opened")
    with pytest.raises(ModelError, match=r"no model\.safetensors, found.*pytorch_model\.bin") as caught:
        load_model(folder)
    assert caught.value.where == str(folder) and "never opened" in str(caught.value.remedy)
    assert not (tmp_path / "opened").exists()


def test_an_index_of_pickled_shards_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    poison(folder, tmp_path / "opened")
    index = json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model.bin"}})
    (folder / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_model(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"the index names 'pytorch_model\.bin'"):
        load_model(folder)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/tmp/model.safetensors", 3])
def test_an_index_does_not_lead_out_of_its_folder(folder: Path, name: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ModelError, match="the index names"):
        load_model(folder)


def test_an_adapter_among_the_weights_would_bring_another_base(folder: Path, grandparent: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(grandparent), "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ModelError, match="an adapter lies among the weights"):
        load_model(folder)


def test_code_in_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(folder)
    assert "without remote code" in str(caught.value.remedy) and not (tmp_path / "ran").exists()


def test_weights_that_are_missing_too_many_or_of_another_shape(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    for weights in (
        {key: value for key, value in whole.items() if key != name},
        whole | {"model.layers.7.mlp.up_proj.weight": whole[name].clone()},
        whole | {name: whole[name][:-1].clone()},
    ):
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="up_proj") as caught:
            load_model(folder)
        assert caught.value.where == str(folder)


@pytest.mark.parametrize("cut", [0, 4, -10])
def test_weights_that_are_cut_off(folder: Path, cut: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="unreadable weights") as caught:
        load_model(folder)
    assert caught.value.where == str(folder)


def test_a_config_that_cannot_be_read(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="unreadable"):
        load_model(folder)


def test_a_tokenizer_that_cannot_be_read(folder: Path) -> None:
    assert len(load_tokenizer(folder)) == 300
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    assert caught.value.where == str(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(folder)


def test_generations_share_a_tokenizer(folder: Path, parent: Path) -> None:
    check_same_tokenizer(parent, folder)
    train_tokenizer(["something else entirely"], 280).save_pretrained(folder)
    with pytest.raises(TokenizerMismatch) as caught:
        check_same_tokenizer(parent, folder)
    assert caught.value.where == str(folder)
    assert tokenizer_digest(parent)[:12] in caught.value.message
    assert tokenizer_digest(folder)[:12] in caught.value.message


def test_a_config_without_its_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert config_of(folder).hidden_size == 32
