"""Whether a model is a causal language model: what comes later does not move the logits of what came before, and
positions counted from 0 are those that it counts itself.

A model that sees the future learns to copy it, and cannot write. A model with other positions of its own is examined in
other words than it is trained in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.errors import ModelError, is_out_of_memory, said

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
