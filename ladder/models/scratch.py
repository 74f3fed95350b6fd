"""A genesis from nothing: a tokenizer trained on the family's first texts, and random weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ladder.manifest.schema import Architecture
from ladder.models.digest import BEGIN, END, PAD, SPECIAL_TOKENS
from ladder.models.tokenizer import begin_template

LONGEST_WORD = 4096
"""Bytes of a word that merges are learned within. Learning takes time that grows with the square of a word, and where
nothing separates words a whole line is one; what stands to the left and to the right of a cut is never merged."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE with at most ``vocab_size`` entries, special tokens included.

    Deterministic for the same texts in the same order. Every byte is in the vocabulary, so no text is out of it. It
    puts the start token in front of a text, because that is how the family learns: whoever loads it asks as it learned.
    """
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(LONGEST_WORD)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    tokenizer.post_processor = begin_template()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END)


def fresh_model(shape: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights; the vocabulary is the tokenizer's."""
    torch.manual_seed(seed)
    config = llama_config(shape, len(tokenizer))
    config.update({f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")})
    return LlamaForCausalLM(config)


def llama_config(shape: Architecture, vocabulary: int) -> LlamaConfig:
    """The transformers config of an architecture."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate or _feed_forward_width(shape.hidden),
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tie_embeddings,
    )


def _feed_forward_width(hidden: int) -> int:
    """Two thirds of four times the hidden size, rounded up to 32: SwiGLU has three matrices where GELU has two."""
    return -(-(8 * hidden // 3) // 32) * 32
