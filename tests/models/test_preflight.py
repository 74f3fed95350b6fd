"""Folders that are no causal language model in plain numbers say what they are, and what works instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ladder.errors import ModelError, UsageError
from ladder.models.load import load_model, load_tokenizer
from ladder.models.preflight import check_encodes, check_finite, check_vocabulary, panics_told


@pytest.fixture
def folder(parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parent, tmp_path / "model"))


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "gptq": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "its weights are quantised with gptq",
        "take the folder that it was quantised from",
    ),
    "bitsandbytes": (
        {"quantization_config": {"load_in_4bit": True}},
        "quantised with bitsandbytes",
        "base: nf4 with the plain folder",
    ),
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, "quantised with fp8", "quantised from"),
    "remote code": (
        {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling.M"}},
        r"its architecture own is code in the folder \(configuration_own\.py, modeling\.py\), which ladder never runs",
        "a model of one that it knows",
    ),
    "unknown": ({"model_type": "own"}, "does not know the architecture 'own'", "a newer one may"),
    "t5": (
        {"model_type": "t5", "is_encoder_decoder": True},
        "t5 has an encoder beside its decoder",
        "take a causal language model",
    ),
    "bart": ({"model_type": "bart", "is_encoder_decoder": True}, "bart has an encoder", "causal"),
    "vit": ({"model_type": "vit"}, "vit is no causal language model", "take a causal language model"),
}


@pytest.mark.parametrize(("fields", "cause", "remedy"), KINDS.values(), ids=KINDS)
def test_the_true_cause_is_told(folder: Path, fields: dict[str, Any], cause: str, remedy: str) -> None:
    change(folder, **fields)
    with pytest.raises(ModelError, match=cause) as caught:
        load_model(folder)
    assert caught.value.where == str(folder) and remedy in str(caught.value.remedy)


def test_code_beside_an_architecture_that_is_known_is_not_needed(folder: Path) -> None:
    change(folder, auto_map={"AutoModelForCausalLM": "modeling_own.M"})
    (folder / "modeling_own.py").write_text("raise SystemExit")
    load_model(folder)


def test_what_a_gguf_file_leaves_in_the_config_is_no_quantisation(folder: Path) -> None:
    change(folder, quantization_config={"quant_method": "gguf", "dequantize": True})
    load_model(folder)


def test_an_adapter_is_told_apart_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(ModelError, match="is an adapter, made for some/base, and no model") as caught:
        load_model(tmp_path)
    assert "--base FOLDER" in str(caught.value.remedy)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, number: float) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name][0, :3] = number
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="holds 3 numbers of 1,024 that are NaN or infinite: they stand so") as caught:
        check_finite(load_model(folder), "here")
    assert name in str(caught.value) and "checksum" in str(caught.value.remedy)


def test_an_id_beyond_the_embedding() -> None:
    check_vocabulary(299, 300, "here", again="")
    with pytest.raises(UsageError, match=r"here: its tokenizer has ids up to 300, its embedding 300 rows.*\(mend it\)"):
        check_vocabulary(300, 300, "here", again="mend it")


def broken(**fields: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that loads, with other fields in its file."""
    content = json.loads(Tokenizer(models.BPE({"a": 0}, [])).to_str())
    content["model"] |= fields.pop("model", {})
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content | fields)))


BROKEN: dict[str, dict[str, Any]] = {
    "an unknown token that is none": {"model": {"unk_token": "<unk>"}},
    "a panic: a special token that is none": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
    "a panic: a table that leads out of itself": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}
    },
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN)
def test_a_tokenizer_that_loads_and_cannot_encode(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="its tokenizer") as caught:
        check_encodes(broken(**fields), "here")
    assert caught.value.where == "here" and "tokenizer.json" in str(caught.value.remedy)


def test_a_tokenizer_that_can(tokenizer: Any) -> None:
    check_encodes(tokenizer, "here")


def test_a_panic_while_loading_is_an_error_of_the_model(tokenizer: Any, tmp_path: Path) -> None:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(ModelError, match="its tokenizer is broken: Precompiled"), panics_told("here"):
        Tokenizer.from_str(json.dumps(content))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="its tokenizer is broken"):
        load_tokenizer(tmp_path)
    with pytest.raises(KeyboardInterrupt), panics_told("here"):
        raise KeyboardInterrupt
