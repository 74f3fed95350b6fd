"""A model over a batch, gathered to the trained tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.models.head import hidden_states

if TYPE_CHECKING:
    from ladder.data.collate import Batch


def trained_hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Final hidden states [N, D] at the positions that predict a trained token."""
    hidden_BTD = hidden_states(model, **_inputs(batch, model.device))
    return hidden_BTD.flatten(0, 1)[torch.from_numpy(batch.rows_N.copy()).to(model.device)]


def trained_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The model's own logits [N, V] at those positions, for models whose head cannot be told from its backbone."""
    inputs = _inputs(batch, model.device)
    logits_BTV = model(
        input_ids=inputs["input_ids_BT"],
        attention_mask=inputs["attention"],
        position_ids=inputs["position_ids_BT"],
        use_cache=False,
    ).logits
    return logits_BTV.flatten(0, 1)[torch.from_numpy(batch.rows_N.copy()).to(model.device)]


def _inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    arrays = {
        "input_ids_BT": batch.input_ids_BT,
        "attention": batch.attention(),
        "position_ids_BT": batch.position_ids_BT,
    }
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}
