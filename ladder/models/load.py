"""Loading models and tokenizers from local folders: safetensors only, no remote code, no hub, causal models only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from ladder.distill import full_float32
from ladder.errors import ModelError, TokenizerMismatch, is_out_of_memory, said
from ladder.models.digest import tokenizer_digest, weight_files
from ladder.models.preflight import check_config, check_labels, check_layers, check_size, panics_told, stored_shapes
from ladder.models.tokenizer import check_same_ids, read_tokenizer

_BUFFERS = re.compile(
    r"(^|\.)("
    r"masked_bias"  # the lowest number
    r"|attn\.causal_mask|attn\.embed_positions"  # CodeGen, GPT-J
    r"|rotary_emb\.(inv_freq|cos_cached|sin_cached)|rotary_pos_emb\.inv_freq"
    r"|position_ids|embed_positions\.weights"  # counts, and sines of them (XGLM)
    r"|decoder\.version"  # fairseq
    r")$"
)
_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.bias$")
"""A causal mask in GPT-2, GPT-Neo, GPT-J, GPT-NeoX and CodeGen; elsewhere this can be a bias that was learned."""


def is_left_over(name: str, shape: tuple[int, ...] | None) -> bool:
    """Whether a tensor of a file, which no model asked for, is a mask or a table of positions that a model computes.

    Args:
        shape: of the tensor; None where no file holds it.
    """
    if shape is None:
        return False
    # A bias that is learned is a vector, or one for each head; a mask has as many rows as columns.
    mask = len(shape) >= 2 and shape[-1] == shape[-2] and all(size == 1 for size in shape[:-2])
    return bool(_BUFFERS.search(name)) or (mask and bool(_MASK.search(name)))


def without_empty_window(config: PretrainedConfig) -> PretrainedConfig:
    """The same config, with an attention window of 0 as what it means: none. Where the layers of a model have kinds, it
    becomes as long as the model's positions, because the mask of each kind is made, and needs a number."""
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        if getattr(part, "sliding_window", None) == 0:
            part.sliding_window = part.max_position_embeddings if getattr(part, "layer_types", None) else None
    return config


_SEEN, _LATER, _ROWS = 3, 2, 3
"""Tokens that two rows share, tokens in which they differ, and how many such pairs are read."""
_REMEDY = "name a decoder that writes from left to right, such as Llama, Qwen or GPT-2"


class Gaps(NamedTuple):
    """How far a token's logits move where nothing should move them: ||a - b|| / ||b|| over the vocabulary.

    Each is the smallest of all rows. What a model does by its architecture it does in every row; a router of experts
    that rounding tips over does it in few.

    Args:
        future: of the token before those that are exchanged.
        positions: between the model's own positions and those that ladder names.
    """

    future: float
    positions: float


def check_causal(model: PreTrainedModel) -> None:
    """See that a model in evaluation reads from left to right. Takes two forwards of a few tokens.

    Raises:
        ModelError: it cannot read a row, later tokens move earlier logits, or its own positions are others.
    """
    name = type(model).__name__
    try:
        gaps = causal_gaps(model)
    except Exception as error:  # whatever a model raises that needs more than a row of tokens
        if is_out_of_memory(error):
            raise
        raise ModelError(f"it cannot read a row of tokens: {said(error)}", where=name, remedy=_REMEDY) from error
    eps = torch.finfo(model.dtype).eps
    if gaps.future > max(1e-4, eps / 8):
        raise ModelError(
            f"it is no causal language model: a token's logits move by {gaps.future:.2g} of their size with the tokens "
            "after it, which it should not see",
            where=name,
            remedy=f"{_REMEDY}; an encoder such as BERT sees both sides",
        )
    if gaps.positions > eps**0.5:
        raise ModelError(
            f"its logits move by {gaps.positions:.2g} of their size when positions are counted from 0, and not as it "
            "counts them itself",
            where=name,
            remedy=f"{_REMEDY}; RoBERTa and its like count from their padding id",
        )


@full_float32()
@torch.no_grad()
def causal_gaps(model: PreTrainedModel) -> Gaps:
    """The largest differences that matter; 0 where logits are no numbers, which others refuse."""
    ids_BT = _pairs(model.config.get_text_config().vocab_size).to(model.device)
    position_BT = torch.arange(ids_BT.shape[1], device=model.device).expand_as(ids_BT)
    told = model(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), position_ids=position_BT, use_cache=False
    ).logits.float()
    # The first row of each pair, as anyone would ask the model, which keeps its cache then.
    own = model(input_ids=ids_BT[::2]).logits.float()
    return Gaps(_gap(told[::2, _SEEN - 1], told[1::2, _SEEN - 1]), _gap(told[::2].flatten(1), own.flatten(1)))


def _pairs(vocabulary: int) -> Tensor:
    """Rows of ids in pairs that begin alike, [2 R, T]."""
    width = _SEEN + _LATER
    grid_BT = (torch.arange(2 * _ROWS * width) * 7919 + 104729).reshape(2 * _ROWS, width) % vocabulary
    grid_BT[1::2, :_SEEN] = grid_BT[::2, :_SEEN]
    return grid_BT


def _gap(one_RV: Tensor, other_RV: Tensor) -> float:
    size_R = other_RV.norm(dim=-1).clamp_min(1e-6)
    return ((one_RV - other_RV).norm(dim=-1) / size_R).min().nan_to_num(0.0, 0.0, 0.0).item()


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
    model, report = _from_pretrained(AutoModelForCausalLM, folder, dtype, device)
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


def check_same_tokenizer(parent: Path, other: Path, *, whose: str = "the parent's", where: str | None = None) -> None:
    """Teachers and student must see the same ids. Files that differ and make the same ids are no difference.

    Args:
        whose: tokenizer ``parent`` holds, in messages.
        where: of ``other``, in messages; its folder when left out.

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
            f"its tokenizer is {theirs[:12]}, {whose} is {ours[:12]}: {error.message}",
            where=where or error.where,
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


def _from_pretrained(
    kind: Any, folder: Path, dtype: str, device: str = "cpu"
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The folder as an Auto class reads it, and which keys did not fit."""
    weight_files(folder)
    if (folder / "adapter_config.json").exists():
        # from_pretrained would load the adapter, and as its base whatever model the adapter names.
        raise ModelError("an adapter lies among the weights", where=str(folder), remedy=_WHOLE_REMEDY)
    check_layers(folder)
    config = config_of(folder)
    check_size(kind, config, folder)
    # Each tensor goes from the file to the GPU by itself: several actors that begin together would each hold a whole
    # model in the machine's memory.
    straight = {} if torch.device(device).type == "cpu" else {"device_map": {"": device}}
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
            **straight,
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
