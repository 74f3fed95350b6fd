"""GGUF files, dequantised to float32 on the way in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import Digits, PreTokenizer, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.errors import ModelError, said
from ladder.models.load import load_tokenizer

_AS_GPT2 = ("gpt-2", "gpt2", "default", "phi-2", "mpt", "olmo", "jais")
"""Names in ``tokenizer.ggml.pre`` of the pre-tokenizer that transformers takes where it knows none."""
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Names of the one that gives each digit a token of its own, and the rest as GPT-2 does."""


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a GGUF file; its tokenizer comes from a ``tokenizer.json`` beside it, else from the file itself.

    Raises:
        ModelError: the ``gguf`` package is missing, or transformers cannot read the file.
    """
    if find_spec("gguf") is None:
        raise ModelError("reading GGUF needs the package gguf", where=str(path), remedy="pip install gguf")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        return model.eval(), _tokenizer(path)
    except ModelError:
        raise
    except Exception as error:  # its reader trusts every length in the file
        raise ModelError(f"cannot be read as GGUF: {said(error)}", where=str(path)) from error


def _tokenizer(path: Path) -> PreTrainedTokenizerFast:
    if (path.parent / "tokenizer.json").is_file():
        return load_tokenizer(path.parent)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _split_as_named(tokenizer, path)
    return tokenizer


def _split_as_named(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """See that the text is cut as the file says, which names its pre-tokenizer and does not hold it.

    Raises:
        ModelError: the file names one that neither transformers nor ladder knows: other tokens would come out.
    """
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    model, named = (fields[key].contents() if key in fields else None for key in ("tokenizer.ggml.model", _PRE))
    split: PreTokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    # Where transformers knows the name, it has made a sequence of two.
    if model != "gpt2" or named is None or named in _AS_GPT2 or isinstance(split, Sequence):
        return
    if named not in _DIGITS_APART:
        raise ModelError(
            f"{_PRE} is {named!r}, which is not known here, so its tokens would be others than the model's",
            where=str(path),
            remedy="put the tokenizer.json of the original model beside the file",
        )
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), split])


_PRE = "tokenizer.ggml.pre"
