"""A model over a batch, gathered to the trained tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.errors import ModelError
from ladder.models.head import hidden_states

if TYPE_CHECKING:
    from ladder.data.collate import Batch


def trained_hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Final hidden states [N, D] at the positions that predict a trained token."""
    hidden_BTD = hidden_states(model, **_inputs(model, batch))
    return hidden_BTD.flatten(0, 1)[torch.from_numpy(batch.rows_N.copy()).to(model.device)]


def trained_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The model's own logits [N, V] at those positions, for models whose head cannot be told from its backbone."""
    inputs = _inputs(model, batch)
    logits_BTV = model(
        input_ids=inputs["input_ids_BT"],
        attention_mask=inputs["attention"],
        position_ids=inputs["position_ids_BT"],
        use_cache=False,
    ).logits
    return logits_BTV.flatten(0, 1)[torch.from_numpy(batch.rows_N.copy()).to(model.device)]


def _inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    arrays = {
        "input_ids_BT": batch.input_ids_BT,
        "attention": batch.attention(),
        "position_ids_BT": batch.position_ids_BT,
    }
    tensors = {name: torch.from_numpy(array.copy()).to(model.device) for name, array in arrays.items()}
    if batch.packed:
        _check_window(model, batch.input_ids_BT.shape[1])
        tensors["attention"] = _additive(tensors["attention"], model.dtype)
    return tensors


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attention is allowed, else the lowest number. Every attention adds such a mask; only some take booleans,
    and eager attention would add those as 0 and 1."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _check_window(model: PreTrainedModel, width: int) -> None:
    """A ready-made mask replaces the model's own, and with it a sliding window."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and width > window:
        raise ModelError(
            f"a packed sequence of {width} tokens is longer than the model's attention window of {window}",
            where=type(model).__name__,
            remedy="write data.packing: false, or shorten data.max_length to the window",
        )
