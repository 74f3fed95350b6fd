"""Tiny tokenizers in the shapes that people have: each trained here, none like another in its pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from ladder.models.tokenizer import CORPUS

WORDS = (*CORPUS, "The moon is a quiet friend of the sea.", "In 650 there were 841 ships, in 823 one.") * 3
PAD, BEGIN, END, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLASSES = (
    "PreTrainedTokenizerFast",
    "GPT2Tokenizer",
    "Qwen2TokenizerFast",
    "GPTNeoXTokenizerFast",
    "CohereTokenizerFast",
    "GemmaTokenizerFast",
    "LlamaTokenizerFast",
    "BertTokenizerFast",
    "T5TokenizerFast",
    "NobodysTokenizer",
    None,
)
"""What a tokenizer_config.json may name beside any tokenizer.json; the first one keeps the file."""


def bytes_shape(
    pre: Any = None, normalizer: Any = None, *, spaced: bool = False, regex: bool | None = None
) -> Tokenizer:
    """Byte-level BPE; ``pre`` cuts the text before bytes become characters, and GPT-2's ``regex`` where it does not."""
    made = Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=pre is None if regex is None else regex)
    made.pre_tokenizer = last if pre is None else pre_tokenizers.Sequence([pre, last])
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    return _trained(made, trainers.BpeTrainer, vocab_size=420, initial_alphabet=ALPHABET)


def _trained(made: Tokenizer, trainer: Any, **settings: Any) -> Tokenizer:
    made.train_from_iterator(WORDS, trainer(special_tokens=list(SPECIAL), show_progress=False, **settings))
    return made


def _begun(made: Tokenizer) -> Tokenizer:
    made.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN}:1 $B:1", special_tokens=[(BEGIN, 1)]
    )
    return made


def _pieces(normalizer: Any, pre: Any, decoder: Any) -> Tokenizer:
    """BPE of pieces with byte fallback, as SentencePiece writes it."""
    made = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    if normalizer is not None:
        made.normalizer = normalizer
    if pre is not None:
        made.pre_tokenizer = pre
    made.decoder = decoder
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        WORDS, trainers.BpeTrainer(special_tokens=[*SPECIAL, *fallback], show_progress=False, vocab_size=520)
    )
    told = json.loads(made.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(told))


def _joined(*, strip: bool) -> Any:
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if strip else [])])


def _unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return _trained(made, trainers.UnigramTrainer, vocab_size=300, unk_token=UNKNOWN)


def _word_pieces() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _trained(made, trainers.WordPieceTrainer, vocab_size=400)


def _whole_words() -> Tokenizer:
    made = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return _trained(made, trainers.WordLevelTrainer, vocab_size=400)


def _flagged() -> Tokenizer:
    """Added tokens that take the spaces around them along, or are looked for after normalising."""
    made = bytes_shape(normalizer=normalizers.Lowercase())
    made.add_tokens(
        [AddedToken("<k>", lstrip=True, rstrip=True, normalized=False), AddedToken("MOON", normalized=True)]
    )
    return made


def _double() -> Tokenizer:
    made = bytes_shape(pre_tokenizers.Split(Regex(LLAMA3), "isolated"))
    begin = _begun(Tokenizer(models.BPE())).post_processor
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    return made


SHAPES: dict[str, Callable[[], Tokenizer]] = {
    "as GPT-2": bytes_shape,
    "digits by three": lambda: bytes_shape(
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    ),
    "digits apart": lambda: bytes_shape(pre_tokenizers.Digits(individual_digits=True), regex=True),
    "composed, as Qwen2": lambda: bytes_shape(pre_tokenizers.Split(Regex(LLAMA3), "isolated"), normalizers.NFC()),
    "begun twice wrapped, as Llama 3": _double,
    "spaced in front and begun": lambda: _begun(bytes_shape(spaced=True)),
    "lower case and compatible": lambda: bytes_shape(
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    ),
    "no accents": lambda: bytes_shape(normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "flagged tokens": _flagged,
    "prepended, as Llama 2": lambda: _begun(
        _pieces(
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, _joined(strip=True)
        )
    ),
    "pieces without a start": lambda: _pieces(
        None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), _joined(strip=True)
    ),
    "cut at spaces, as Gemma": lambda: _begun(
        _pieces(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), _joined(strip=False))
    ),
    "scripts apart": lambda: bytes_shape(
        pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.Punctuation()])
    ),
    "unigram": _unigram,
    "word pieces": _word_pieces,
    "whole words": _whole_words,
}


def write_shape(folder: Path, shape: str, kind: str | None = CLASSES[0], **told: Any) -> Path:
    """The tokenizer of this shape beside a config of another architecture, as a class of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    SHAPES[shape]().save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": kind} if kind else {}
    config = {"pad_token": PAD, "bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN, **named, **told}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return folder
