"""The residual stream of a model: read behind any layer, and changed there."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ladder.concepts.layers import changed, decoder_layers, residuals
from ladder.errors import LadderError, ModelError

SIZES = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
KINDS = {
    "llama": LLAMA,
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "gpt_neox": LLAMA,
    "mixtral": LLAMA | {"num_key_value_heads": 2, "num_local_experts": 3},
    "lfm2": LLAMA | {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention", "conv"]},
}


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **KINDS[kind])).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_residuals_are_what_the_model_calls_its_hidden_states(kind: str) -> None:
    model, ids_BT = model_of(kind), torch.arange(3, 13).reshape(2, 5)
    told = model(ids_BT, output_hidden_states=True).hidden_states  # by hooks of transformers' own, which stay
    before = [len(layer._forward_hooks) for layer in decoder_layers(model)]
    with residuals(model, [0, 1]) as left:
        model(ids_BT)
    for layer in (0, 1):
        assert torch.equal(left[layer], told[layer + 1])
    assert [len(layer._forward_hooks) for layer in decoder_layers(model)] == before


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_change_acts_on_prompt_and_new_tokens_alike(kind: str) -> None:
    model, shift_D = model_of(kind), torch.linspace(-3, 3, 16)
    prompt_BT = torch.tensor([[3, 4, 5]])
    with changed(model, {1: lambda hidden_BTD: hidden_BTD + shift_D}):
        told = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        cached = model.generate(prompt_BT, use_cache=True, **told)
        whole_BTV = model(cached.sequences).logits
    assert not torch.allclose(model(cached.sequences).logits, whole_BTV, atol=1e-3)
    for step, logits_BV in enumerate(cached.logits):
        assert torch.allclose(logits_BV, whole_BTV[:, prompt_BT.shape[1] - 1 + step], atol=1e-4)


def test_unknown_layers_and_models_without_a_list_of_them() -> None:
    model = model_of("llama")
    with (
        pytest.raises(LadderError, match=r"layers \[3\], expected different numbers from 0 to 2"),
        residuals(model, [3]),
    ):
        pass
    with pytest.raises(LadderError, match="different numbers"), changed(model, {-1: lambda hidden_BTD: hidden_BTD}):
        pass
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="no list of 7 decoder layers"):
        decoder_layers(model)
