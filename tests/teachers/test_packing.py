"""A model that would mix packed rows is refused before it learns from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, Lfm2Config, MistralConfig

from ladder.errors import ModelError
from ladder.models.load import load_model
from ladder.teachers.forward import check_packing, prove_packing

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {"num_hidden_layers": 2, "num_key_value_heads": 1, "intermediate_size": 32}
CONVOLUTION = Lfm2Config(**SIZES, **LAYERS, layer_types=["conv", "full_attention"])


def make(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data.mul_(6)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_keeps_packed_rows_apart(parent: Path, dtype: str) -> None:
    check_packing(load_model(parent, dtype))
    check_packing(make(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2)).to(getattr(torch, dtype)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_convolution_reads_on_across_rows(dtype: str) -> None:
    with pytest.raises(ModelError, match="change with the row before it") as caught:
        check_packing(make(CONVOLUTION).to(getattr(torch, dtype)))
    assert "data.packing: false" in str(caught.value.remedy)


def test_positions_that_run_on_across_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))
    assert max(prove_packing(model)) < 1e-5
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **told: forward(**told | {"position_ids": None}))
    leak, shift = prove_packing(model)
    assert leak < 1e-5 and shift > 1e-2
    with pytest.raises(ModelError, match="from those of the row alone"):
        check_packing(model)


def test_a_model_that_takes_no_such_mask_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="packed rows cannot be read") as caught:
        check_packing(make(BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2)))
    assert caught.value.where == "BloomForCausalLM"


def test_a_window_says_so_itself() -> None:
    with pytest.raises(ModelError, match="attention window of 8"):
        check_packing(make(MistralConfig(**SIZES, **LAYERS, sliding_window=8)))


def test_logits_that_are_no_numbers_are_not_trusted(parent: Path) -> None:
    model = load_model(parent)
    model.get_output_embeddings().weight.data[:] = math.nan
    with pytest.raises(ModelError, match="by nan of the largest"):
        check_packing(model)


def test_a_model_without_a_linear_head_can_be_checked(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(parent)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    check_packing(model)
