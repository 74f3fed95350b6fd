"""Tiny models of several families, from their configs."""

from __future__ import annotations

from typing import Any

import pytest

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.5},
    "phi": {},
    "mistral": {"sliding_window": None},
    "gpt_neox": {},
}


@pytest.fixture(scope="session")
def make_model() -> Any:
    """``make_model("phi", **config)``: a random model of 2 layers for evaluation, its vectors random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }

    def make(family: str, **config: Any) -> Any:
        torch.manual_seed(0)
        attention = config.pop("attn_implementation", None)
        described = AutoConfig.for_model(family, **sizes | FAMILIES.get(family, {}) | config)
        model = AutoModelForCausalLM.from_config(described, attn_implementation=attention).eval()
        for parameter in model.parameters():
            parameter.data.mul_(8) if parameter.ndim == 2 else torch.nn.init.normal_(parameter, std=0.5)
        return model

    return make


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param
