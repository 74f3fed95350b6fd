"""Masks and positions of older checkpoints are left out by name; what was learned is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError
from ladder.models.load import is_left_over, load_model

MASK = torch.ones(1, 1, 8, 8).bool()
LOWEST = torch.tensor(-1e9)
SIZES = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
SMALL = SIZES | {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
OLDER: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "gpt2": (SMALL, {"transformer.h.0.attn.bias": MASK.to(torch.uint8), "transformer.h.0.attn.masked_bias": LOWEST}),
    "gpt_neo": (
        SIZES | {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "attention_types": [[["local"], 1]]},
        {"transformer.h.0.attn.attention.bias": MASK, "transformer.h.0.attn.attention.masked_bias": LOWEST},
    ),
    "gptj": (
        SMALL | {"rotary_dim": 4},
        {
            "transformer.h.0.attn.bias": MASK,
            "transformer.h.0.attn.masked_bias": LOWEST,
            "transformer.h.0.attn.embed_positions": torch.ones(16, 4),
        },
    ),
    "codegen": (
        SMALL | {"n_head": 4, "n_embd": 32, "rotary_dim": 4},
        {"transformer.h.0.attn.causal_mask": MASK, "transformer.h.0.attn.masked_bias": LOWEST},
    ),
    "gpt_bigcode": (SMALL, {"transformer.h.0.attn.bias": torch.ones(8, 8).bool()}),
    "openai-gpt": (SMALL, {"h.0.attn.bias": MASK.float(), "position_ids": torch.arange(16)}),
    "gpt_neox": (
        SIZES | {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        {
            "gpt_neox.layers.0.attention.bias": MASK,
            "gpt_neox.layers.0.attention.masked_bias": LOWEST,
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(4),
        },
    ),
    "opt": (
        SIZES
        | {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "word_embed_proj_dim": 16,
        },
        {"model.decoder.version": torch.tensor([2.0])},
    ),
}


def older(family: str, folder: Path, extra: dict[str, torch.Tensor], **config: Any) -> Any:
    """A folder of this family with tensors beside its own; returns the model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    described = AutoConfig.for_model(family, **OLDER[family][0] | config)
    model = AutoModelForCausalLM.from_config(described).eval()
    model.save_pretrained(folder)
    save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors", {"format": "pt"})
    return model


@pytest.mark.parametrize("family", OLDER)
def test_buffers_of_older_checkpoints_are_left_out(family: str, tmp_path: Path) -> None:
    model = older(family, tmp_path, OLDER[family][1])
    ids = torch.arange(1, 9).view(1, -1)
    assert torch.equal(load_model(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("transformer.h.0.attn.bias", (16,)),
        ("transformer.h.0.attn.bias", (1, 16)),
        ("transformer.h.0.attn.bias", (3, 8, 8)),
        ("transformer.h.7.attn.c_attn.weight", (16, 48)),
        ("model.layers.0.self_attn.q_proj.bias", (4, 4)),
        ("transformer.h.0.attn.bias", None),
    ],
)
def test_what_could_be_learned_is_missed(name: str, shape: tuple[int, ...] | None) -> None:
    assert not is_left_over(name, shape)


def test_a_bias_that_the_model_has_no_place_for_is_an_error(tmp_path: Path) -> None:
    older("gpt2", tmp_path, {"transformer.h.0.attn.c_proj.scale": torch.ones(16)})
    with pytest.raises(ModelError, match=r"c_proj\.scale"):
        load_model(tmp_path)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen2", "qwen2_moe", "phi3"])
def test_an_attention_window_of_0_is_none(make_model: Any, family: str, tmp_path: Path) -> None:
    model = make_model(family, sliding_window=64)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": 0}))
    ids = torch.arange(12).view(1, -1)
    loaded = load_model(tmp_path)
    assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5), "a window longer than the row is none"
    assert loaded.config.sliding_window in (None, loaded.config.max_position_embeddings)
