"""A model over a batch, gathered to the trained tokens, and whether that model keeps packed rows apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Example
from ladder.distill import full_float32, onto
from ladder.errors import ModelError, is_out_of_memory
from ladder.models import Head, hidden_states

_LENGTH = 6
PROJECTED = 256
"""Tokens that are projected at a time."""
_ALIGNED = 16
"""Elements by which a row of a mask is aligned for the attention kernels of a GPU."""


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


@full_float32()
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
    return hidden_BTD.flatten(0, 1)[_sent(batch.rows_N, model.device)]


def trained_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The model's own logits [N, V] at those positions, for models whose head cannot be told from its backbone."""
    inputs = _inputs(model, batch)
    logits_BTV = model(
        input_ids=inputs["input_ids_BT"],
        attention_mask=inputs["attention"],
        position_ids=inputs["position_ids_BT"],
        use_cache=False,
    ).logits
    return logits_BTV.flatten(0, 1)[_sent(batch.rows_N, model.device)]


@torch.no_grad()
def projected(head: Head, hidden_ND: Tensor) -> Iterator[Tensor]:
    """Logits [n, V] of some hundred tokens at a time, in order, by a proved head: what a model's own forward makes for
    every position of a batch, padding and prompts included, is [B, T, V]."""
    yield from map(head.logits, hidden_ND.split(PROJECTED))


def _inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    inputs = {
        "input_ids_BT": _sent(batch.input_ids_BT, model.device),
        "position_ids_BT": _sent(batch.position_ids_BT, model.device),
    }
    if not batch.packed:
        return inputs | {"attention": _sent(batch.attention(), model.device)}
    _check_window(model, batch.input_ids_BT.shape[1])
    return inputs | {"attention": _packed_mask(_sent(batch.segment_BT, model.device), model.dtype)}


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    return onto(torch.from_numpy(array.copy()), device)


def _packed_mask(segment_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive [B, 1, T, T], causal within examples: 0 where attention is allowed, else the lowest number. Every
    attention adds such a mask; only some take booleans, and eager attention would add those as 0 and 1.

    It is made where the model is, out of [B, T]. On a GPU its rows are aligned as the memory-efficient kernel of
    torch's attention needs them, which would copy it in every layer otherwise; the flash kernels take no mask.
    """
    rows, width = segment_BT.shape
    apart_BTT = segment_BT.unsqueeze(2) != segment_BT.unsqueeze(1)
    later_TT = torch.ones(width, width, dtype=torch.bool, device=segment_BT.device).triu(1)
    wide = width if segment_BT.device.type == "cpu" else -(-width // _ALIGNED) * _ALIGNED
    mask_B1TT = torch.zeros(rows, 1, width, wide, dtype=dtype, device=segment_BT.device)[..., :width]
    return mask_B1TT.masked_fill_((apart_BTT | later_TT).unsqueeze(1), torch.finfo(dtype).min)


def _check_window(model: PreTrainedModel, width: int) -> None:
    """A ready-made mask replaces the model's own, and with it a sliding window."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and width > window:
        raise ModelError(
            f"a packed sequence of {width} tokens is longer than the model's attention window of {window}",
            where=type(model).__name__,
            remedy="write data.packing: false, or shorten data.max_length to the window",
        )
