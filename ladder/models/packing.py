"""Whether a model keeps packed rows apart. Attention does, by its mask; convolutions and recurrences have none."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.data.collate import Collation, collate
from ladder.data.examples import Example
from ladder.errors import ModelError, is_out_of_memory
from ladder.models.forward import trained_logits

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
