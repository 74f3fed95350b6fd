"""A genesis from nothing: a tokenizer trained on the family's first texts, and random weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from ladder.errors import ManifestError
from ladder.manifest import Architecture, installed
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


def fresh_model(shape: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A model with random weights; the vocabulary is the tokenizer's.

    Raises:
        ManifestError: as ``architecture_config``.
    """
    torch.manual_seed(seed)
    config = architecture_config(shape, len(tokenizer))
    config.update({f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")})
    return AutoModelForCausalLM.from_config(config)


def architecture_config(shape: Architecture, vocabulary: int) -> PretrainedConfig:
    """The transformers config of an architecture, by its family: a function of both arguments, which may refuse what it
    cannot bear. The config's model must be one that ``AutoModelForCausalLM`` knows: that is how a generation is loaded.

    Raises:
        ManifestError: the family is a plug-in's that is not installed now or cannot be loaded, or is none; or it cannot
            bear what the architecture says.
    """
    where = "student.architecture.family"
    family = installed.load(installed.FAMILIES, shape.family, where)
    config = family(shape, vocabulary) if callable(family) else family
    if not isinstance(config, PretrainedConfig):
        message = f"{shape.family!r} gives {config!r:.80}, expected a config of transformers"
        raise ManifestError(message, where=where, remedy="see docs/extending.md")
    return config


def llama_config(shape: Architecture, vocabulary: int) -> LlamaConfig:
    """Llama: rotary positions, RMSNorm, SwiGLU, grouped heads."""
    return LlamaConfig(**_llama_sizes(shape, vocabulary))


def qwen3_config(shape: Architecture, vocabulary: int) -> Qwen3Config:
    """Qwen3: as Llama, with queries and keys normalised in each head."""
    return Qwen3Config(**_llama_sizes(shape, vocabulary), head_dim=shape.hidden // shape.heads)


def gpt2_config(shape: Architecture, vocabulary: int) -> GPT2Config:
    """GPT-2: learned positions, LayerNorm, GELU, biases; without dropout, as the other families.

    Raises:
        ManifestError: ``kv_heads`` asks for grouped heads, which it does not have.
    """
    if shape.kv_heads not in (None, shape.heads):
        raise ManifestError(
            f"found {shape.kv_heads}, but each head of gpt2 has keys and values of its own",
            where="student.architecture.kv_heads",
            remedy="leave it out, or take the family llama",
        )
    return GPT2Config(
        vocab_size=vocabulary,
        n_embd=shape.hidden,
        n_inner=shape.intermediate,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_positions=shape.max_positions,
        tie_word_embeddings=shape.tie_embeddings,
        # The same function as GPT-2's own, in one kernel that keeps one tensor instead of eight.
        activation_function="gelu_pytorch_tanh",
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )


def _llama_sizes(shape: Architecture, vocabulary: int) -> dict[str, Any]:
    """What Llama and the families after it are told of an architecture."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate or _feed_forward_width(shape.hidden),
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads or shape.heads,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": shape.tie_embeddings,
    }


def _feed_forward_width(hidden: int) -> int:
    """Two thirds of four times the hidden size, rounded up to 32: SwiGLU has three matrices where GELU has two."""
    return -(-(8 * hidden // 3) // 32) * 32
