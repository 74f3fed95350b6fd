"""A model over a batch, gathered to the trained tokens, and whether that model keeps packed rows apart."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Example
from ladder.errors import ModelError, is_out_of_memory
from ladder.models import hidden_states

_LENGTH = 6


def check_packing(model: PreTrainedModel) -> None:
    """See that the model reads a row alone, and packed behind one row or another, as the same.

    Raises:
        ModelError: its logits depend on the row before it by more than rounding does, or differ from those of the row
            alone in more than half the digits of the dtype; or the model cannot read packed rows at all.
    """
    leak, shift = prove_packing(model)
    eps = torch.finfo(model.dtype).eps
    if not (leak <= max(1e-5, 2 * eps) and shift <= eps**0.5):
        raise ModelError(
            f"a packed row's logits change with the row before it by {leak:.2g} of the largest logit, "
            f"and by {shift:.2g} from those of the row alone",
            where=type(model).__name__,
            remedy="write data.packing: false; data.group_by_length pads little",
        )


@torch.no_grad()
def prove_packing(model: PreTrainedModel) -> tuple[float, float]:
    """How far the logits of one row differ behind two other rows, and behind one of them and alone; relative to the
    largest. The first comparison is exact in any dtype but for sums that a batch reorders; the second rounds.

    Raises:
        ModelError: the model cannot read packed rows.
    """
    row, *others = (_row(number, model.config.get_text_config().vocab_size) for number in range(3))
    alone = _read(model, row)
    try:
        one, other = (_read(model, before, row)[-len(alone) :] for before in others)
    except (RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"packed rows cannot be read: {error}", where=type(model).__name__, remedy="write data.packing: false"
        ) from error
    largest = alone.abs().max().clamp_min(1e-6)
    return ((one - other).abs().max() / largest).item(), ((one - alone).abs().max() / largest).item()


def _row(number: int, vocabulary: int) -> Example:
    ids = tuple((7919 * (number * _LENGTH + t) + 1) % vocabulary for t in range(_LENGTH))
    return Example(ids, (True,) * (_LENGTH - 1), gold=False)


def _read(model: PreTrainedModel, *rows: Example) -> Tensor:
    """Logits of all rows in one sequence."""
    batch = collate(rows, [0] * len(rows), Collation(0, _LENGTH * len(rows), packing=True))
    return trained_logits(model, batch).float()


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
