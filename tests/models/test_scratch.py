"""A genesis from nothing is a function of texts, shape and seed."""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ladder.errors import ManifestError
from ladder.manifest.installed import OWN
from ladder.manifest.schema import Architecture
from ladder.models import scratch
from ladder.models.digest import tensors_digest
from ladder.models.intake import save_model
from ladder.models.load import load_model
from ladder.models.scratch import SPECIAL_TOKENS, architecture_config, fresh_model, llama_config, train_tokenizer

SHAPE = Architecture(layers=2, hidden=32, heads=4, kv_heads=2, max_positions=48)


def test_the_tokenizer_is_the_same_for_the_same_texts() -> None:
    texts = ["the moon", "the tide of the moon"] * 4
    one, other = (train_tokenizer(iter(texts), 280) for _ in range(2))
    assert one.get_vocab() == other.get_vocab() and len(one) <= 280
    assert train_tokenizer(["a sea"] * 4, 280).get_vocab() != one.get_vocab()


def test_a_line_without_spaces_takes_time_that_grows_with_its_length() -> None:
    """Ten times the length took a hundred times as long when the line was one word."""
    source = random.Random(0)

    def seconds(length: int) -> float:
        line, began = "".join(source.choices("日本語中文漢字", k=length)), time.process_time()
        train_tokenizer([line], 1000)
        return time.process_time() - began

    assert seconds(80_000) < 30 * max(0.02, seconds(8_000))


def test_ordinary_words_are_learned_as_if_there_were_no_longest() -> None:
    """The digest was taken before words had a longest length: families that were made then go on."""
    texts = [f"Row {number} of the tide: {number * 7919} waves, größer; 月は静かな友だち。" for number in range(300)]
    merges = json.loads(train_tokenizer(texts, 600).backend_tokenizer.to_str())["model"]["merges"]
    assert hashlib.sha256(json.dumps(merges).encode()).hexdigest()[:16] == "c78dcb98b8c5de46"


def test_a_word_is_cut_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LONGEST_WORD", 8)
    made = train_tokenizer(["abcdefgh" * 50], 600)
    assert max(len(token) for token in made.get_vocab() if token not in SPECIAL_TOKENS) == 8
    assert len(made.encode("abcdefgh" * 3, add_special_tokens=False)) == 3


def test_no_text_is_out_of_the_vocabulary(tokenizer: Any) -> None:
    for text in ("Ünal 🌙\t\n\x00", "  two  blanks ", "<|end|>"):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.decode(ids) == text


def test_special_tokens(tokenizer: Any) -> None:
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_weights_are_a_function_of_the_seed(tokenizer: Any) -> None:
    one, same, other = (fresh_model(SHAPE, tokenizer, seed) for seed in (7, 7, 8))
    assert tensors_digest(one.state_dict()) == tensors_digest(same.state_dict()) != tensors_digest(other.state_dict())
    torch.manual_seed(99)
    assert tensors_digest(fresh_model(SHAPE, tokenizer, 7).state_dict()) == tensors_digest(one.state_dict())


def test_the_shape_is_the_manifests(tokenizer: Any) -> None:
    config = fresh_model(SHAPE, tokenizer, 0).config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 32, 4)
    assert (config.num_key_value_heads, config.max_position_embeddings, config.vocab_size) == (2, 48, len(tokenizer))
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.tie_word_embeddings
    assert not llama_config(SHAPE.model_copy(update={"tie_embeddings": False}), 300).tie_word_embeddings
    assert llama_config(SHAPE.model_copy(update={"kv_heads": None}), 300).num_key_value_heads == 4


@pytest.mark.parametrize(("hidden", "width"), [(32, 96), (96, 256), (128, 352), (768, 2048)])
def test_width_of_the_feed_forward_layer(hidden: int, width: int) -> None:
    shape = Architecture(hidden=hidden)
    assert llama_config(shape, 300).intermediate_size == width
    assert llama_config(shape.model_copy(update={"intermediate": 50}), 300).intermediate_size == 50


@pytest.mark.parametrize("family", OWN["ladder.families"])
def test_every_family_is_a_function_of_the_seed_and_loads_again(family: str, tokenizer: Any, tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"family": family, "kv_heads": None})
    one, same = (fresh_model(shape, tokenizer, 7) for _ in range(2))
    assert tensors_digest(one.state_dict()) == tensors_digest(same.state_dict())
    assert one.config.model_type == family and one.config.vocab_size == len(tokenizer)
    assert (one.config.pad_token_id, one.config.bos_token_id, one.config.eos_token_id) == (0, 1, 2)
    save_model(tmp_path, one, tokenizer)
    assert tensors_digest(load_model(tmp_path, "float32", "cpu").state_dict()) == tensors_digest(one.state_dict())


def test_a_family_from_before_there_were_others_has_the_same_weights(tokenizer: Any) -> None:
    """As the code that knew Llama only made them: a run that began then goes on from the same. The numbers themselves
    depend on the processor, so both are made here."""
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    config = LlamaConfig(**shape, **ids, num_key_value_heads=2, max_position_embeddings=48, tie_word_embeddings=True)
    before = LlamaForCausalLM(config)
    assert tensors_digest(fresh_model(SHAPE, tokenizer, 7).state_dict()) == tensors_digest(before.state_dict())


def test_what_a_family_cannot_bear_is_refused() -> None:
    with pytest.raises(ManifestError, match="keys and values of its own") as caught:
        architecture_config(SHAPE.model_copy(update={"family": "gpt2"}), 300)
    assert caught.value.where == "student.architecture.kv_heads"
    grouped = architecture_config(SHAPE.model_copy(update={"family": "qwen3"}), 300)
    assert (grouped.num_key_value_heads, grouped.head_dim) == (2, 8)
