"""A model that sees the future, or counts positions its own way, is refused where it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, MixtralConfig, RobertaConfig, XLNetConfig

from ladder.errors import ModelError
from ladder.models.load import causal_gaps, check_causal, load_model

BERT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}
DTYPES = ["float32", "bfloat16"]


def make(config: Any, dtype: str = "float32") -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_decoders_of_many_families_read_from_left_to_right(make_model: Any, family: str, dtype: str) -> None:
    model = make_model(family).to(getattr(torch, dtype))
    check_causal(model)
    assert causal_gaps(model).future == 0.0, "what is not seen moves no bit"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [BertConfig(**BERT), XLNetConfig(vocab_size=300, d_model=32, n_layer=2, n_head=2)])
def test_a_model_that_sees_the_future_is_refused(config: Any, dtype: str) -> None:
    with pytest.raises(ModelError, match=r"no causal language model.*tokens after it") as caught:
        check_causal(make(config, dtype))
    assert "Llama" in str(caught.value.remedy) and str(caught.value.where).endswith("LMHeadModel")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decoder_that_counts_its_own_positions_is_refused(dtype: str) -> None:
    check_causal(make(BertConfig(**BERT, is_decoder=True), dtype))
    with pytest.raises(ModelError, match=r"positions are counted from 0.*RoBERTa"):
        check_causal(make(RobertaConfig(**BERT, is_decoder=True), dtype))


def test_a_glance_at_the_next_token_alone_is_seen(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a convolution that is not shifted would have it: no other place can show it."""
    model = make_model("llama")
    forward = model.forward

    def ahead(**told: Any) -> Any:
        output = forward(**told)
        output.logits[:, :-1] += 0.01 * output.logits[:, 1:]
        return output

    monkeypatch.setattr(model, "forward", ahead)
    with pytest.raises(ModelError, match="no causal language model"):
        check_causal(model)


def test_rounding_that_tips_a_router_over_in_one_row_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    model = make(MixtralConfig(vocab_size=300, hidden_size=32, intermediate_size=48, **shape))
    check_causal(model)
    forward = model.forward

    def tipped(**told: Any) -> Any:
        output = forward(**told)
        output.logits[1] *= 1 + 0.1 * torch.rand_like(output.logits[1])
        return output

    monkeypatch.setattr(model, "forward", tipped)
    check_causal(model)


def test_a_model_that_needs_more_than_tokens_is_refused_in_words(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")

    def asks(**told: Any) -> Any:
        raise ValueError("Input language unknown")

    monkeypatch.setattr(model, "forward", asks)
    with pytest.raises(ModelError, match="cannot read a row of tokens: Input language unknown"):
        check_causal(model)


def test_it_is_refused_when_it_loads(tmp_path: Path) -> None:
    make(BertConfig(**BERT)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no causal language model"):
        load_model(tmp_path)


def test_nothing_is_left_behind(parent: Path) -> None:
    state = torch.get_rng_state()
    load_model(parent)
    assert torch.equal(torch.get_rng_state(), state)
