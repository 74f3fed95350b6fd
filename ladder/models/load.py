"""Loading models and tokenizers from local folders: safetensors only, no remote code, no hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from ladder.errors import ModelError, TokenizerMismatch, is_out_of_memory, said
from ladder.models.causality import check_causal
from ladder.models.digest import tokenizer_digest, weight_files
from ladder.models.older import is_left_over, without_empty_window
from ladder.models.preflight import check_config, panics_told
from ladder.models.size import check_labels, check_layers, check_size, stored_shapes
from ladder.models.tokenizer import check_same_ids, read_tokenizer

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def load_model(folder: Path, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Load a causal language model for evaluation (dropout off).

    Masks and positions that older checkpoints hold as tensors are left out: a model computes them.

    Args:
        folder: a Hugging Face folder with safetensors.
        dtype: name of a torch dtype, such as ``float32``.
        device: a torch device, such as ``cpu`` or ``cuda:0``.

    Raises:
        ModelError: the folder cannot be loaded, weights are missing or do not fit, an adapter lies among them, or it is
            no causal language model.
    """
    check_config(folder)
    model, report = _from_pretrained(AutoModelForCausalLM, folder, dtype)
    shapes = stored_shapes(folder)
    misfits = [key for kind in _MISFITS for key in report.get(kind, ())]
    _check_fit([key for key in misfits if not is_left_over(key, shapes.get(key))], folder)
    model = model.to(device).eval()
    check_causal(model)
    return model


def load_encoder(folder: Path) -> PreTrainedModel:
    """Load the body of any encoder on the CPU in float32, for evaluation (dropout off).

    A head that lies in the folder is left out, and a pooler that does not is never asked.

    Raises:
        ModelError: the folder cannot be loaded, the body's weights are missing or do not fit, or it needs a decoder.
    """
    model, report = _from_pretrained(AutoModel, folder, "float32")
    if model.config.is_encoder_decoder:
        raise ModelError("found an encoder with a decoder", where=str(folder), remedy="name an encoder such as BERT")
    missing = [key for key in report.get("missing_keys", ()) if not key.startswith("pooler.")]
    _check_fit([*missing, *report.get("mismatched_keys", ())], folder)
    return model.eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the folder's fast tokenizer: what its ``tokenizer.json`` says, whatever class goes with it.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    tokenizer_digest(folder)
    try:
        with panics_told(str(folder)):
            return read_tokenizer(folder)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare ones
        raise ModelError(f"tokenizer cannot be loaded: {said(error)}", where=str(folder)) from error


def check_same_tokenizer(parent: Path, other: Path) -> None:
    """Teachers and student must see the same ids. Files that differ and make the same ids are no difference.

    Raises:
        TokenizerMismatch: the folders' tokenizers differ; the message names both digests, and in what they differ.
    """
    ours, theirs = tokenizer_digest(parent), tokenizer_digest(other)
    if ours == theirs:
        return
    try:
        check_same_ids(load_tokenizer(parent), load_tokenizer(other), str(other))
    except TokenizerMismatch as error:
        raise TokenizerMismatch(
            f"its tokenizer is {theirs[:12]}, the parent's is {ours[:12]}: {error.message}",
            where=error.where,
            remedy=error.remedy,
        ) from error


def config_of(folder: Path) -> PretrainedConfig:
    """The folder's transformers config, without loading weights.

    Raises:
        ModelError: there is none, or transformers cannot read it.
    """
    check_labels(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return without_empty_window(config)
    except Exception as error:  # a config can hold anything under any key
        raise ModelError(f"cannot be loaded: {said(error)}", where=str(folder), remedy=_ARCHITECTURE_REMEDY) from error


def _from_pretrained(kind: Any, folder: Path, dtype: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The folder as an Auto class reads it, and which keys did not fit."""
    weight_files(folder)
    if (folder / "adapter_config.json").exists():
        # from_pretrained would load the adapter, and as its base whatever model the adapter names.
        raise ModelError("an adapter lies among the weights", where=str(folder), remedy=_WHOLE_REMEDY)
    check_layers(folder)
    config = config_of(folder)
    check_size(kind, config, folder)
    try:
        return kind.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are reported, and named by _check_fit
            output_loading_info=True,
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"cannot be loaded: {said(error)}", where=str(folder), remedy=_ARCHITECTURE_REMEDY) from error


def _check_fit(misfits: Sequence[object], folder: Path) -> None:
    if misfits:
        raise ModelError(
            f"weights do not fit the architecture: {list(misfits[:5])}", where=str(folder), remedy=_WHOLE_REMEDY
        )


_MISFITS = ("missing_keys", "mismatched_keys", "unexpected_keys")
_ARCHITECTURE_REMEDY = "transformers must know the architecture without remote code"
_WHOLE_REMEDY = "save the whole model again; an adapter belongs in a folder of its own"
