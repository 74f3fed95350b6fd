"""GGUF files, dequantised to float32 on the way in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.errors import ModelError, said
from ladder.models.load import load_tokenizer


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
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
