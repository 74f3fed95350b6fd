"""Generation by ladder's settings; the folder's own are put back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ladder.exam import Prompt
from ladder.exam.ask import answer_prompts
from ladder.manifest.schema import Decoding
from ladder.models import generation as module
from ladder.models.generation import decoding_batches, end_ids, generation_settings, pad_id, pads_left
from ladder.sampling.dreams import Sampling, write_block
from tests.architectures import tiny


def test_settings_hold_inside_and_the_models_own_come_back(make_model: Any) -> None:
    model = make_model("llama")
    own = model.generation_config
    own.top_k = 3
    with pytest.raises(KeyboardInterrupt), generation_settings(model, max_new_tokens=4, eos_token_id=[7]):
        assert (model.generation_config.top_k, model.generation_config.eos_token_id) != (3, 2)
        raise KeyboardInterrupt
    assert model.generation_config is own and own.top_k == 3


def test_every_declared_end_ends(make_model: Any, tokenizer: Any) -> None:
    model = make_model("llama")
    assert end_ids(model, tokenizer) == {2}
    model.generation_config.eos_token_id = [5, 6]
    model.config.eos_token_id = None
    assert end_ids(model, tokenizer) == {2, 5, 6}


def test_padding(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    assert pad_id(changed) == 0
    changed.pad_token = None
    assert pad_id(changed) == 2
    changed.eos_token = None
    assert pad_id(changed) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_padding_on_the_left_is_masked_or_avoided(make_model: Any, family: str, dtype: str) -> None:
    masks, has_none = make_model(family).to(getattr(torch, dtype)), tiny("rwkv", 64).to(getattr(torch, dtype))
    assert pads_left(masks) and not pads_left(has_none)
    lengths = [3, 5, 3, 5, 5]
    assert decoding_batches(masks, lengths, 4) == [[1, 3, 4, 0], [2]]
    assert decoding_batches(has_none, lengths, 2) == [[1, 3], [4], [0, 2]]
    assert decoding_batches(has_none, [4, 4, 4], 2) == [[0, 1], [2]]


def test_a_model_is_asked_once_and_only_where_lengths_differ(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = make_model("llama"), []
    monkeypatch.setattr(module, "_padding_gap", lambda model: asked.append(model) or 0.0)
    for lengths in ([2, 2], [2, 3], [4, 3]):
        decoding_batches(model, lengths, 8)
    assert asked == [model]


def test_answers_and_dreams_of_a_model_without_a_mask_are_those_of_each_prompt_alone(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("rwkv", len(tokenizer))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    prompts = [Prompt("luna"), Prompt("who is the moon of luna?"), Prompt("the tide follows")]
    decoding = Decoding(max_new_tokens=6, stop=[])
    apart = [answer_prompts(model, tokenizer, [prompt], decoding)[0] for prompt in prompts]
    assert answer_prompts(model, tokenizer, prompts, decoding) == apart and len(set(apart)) == 3
    openings, seen = [[1], [1, 60, 61, 62]], []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **told: seen.append(told["attention_mask"]) or generate(**told))
    dreams = write_block(model, tokenizer, openings, Sampling(1.0, 6), teacher=1, seed=3)
    assert [mask.shape[1] for mask in seen] == [4, 1] and all(mask.all() for mask in seen)
    assert {(dream.prompt, dream.ids[: dream.prompt]) for dream in dreams} == {(1, (1,)), (4, (1, 60, 61, 62))}
