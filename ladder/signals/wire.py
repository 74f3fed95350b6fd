"""The codec between torch and the wire: numpy arrays with a dtype tag, because numpy has no bfloat16 and Ray moves
numpy without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ladder.errors import ModelError

Kind = Literal["hidden", "logits"]
_AS_UINT16 = "bfloat16"


@dataclass(frozen=True)
class Signal:
    """What one teacher says about the tokens of one micro-batch that it heard.

    Args:
        kind: final hidden states [M, D] or logits [M, V].
        values: the numbers, bfloat16 as uint16.
        dtype: name of the torch dtype.
        places: which M of the batch's N tokens these are, ascending.
    """

    kind: Kind
    values: np.ndarray
    dtype: str
    places: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.places.nbytes


def encode(kind: Kind, values: Tensor, places: np.ndarray) -> Signal:
    """Put a teacher's tensor on the wire."""
    dtype = str(values.dtype).removeprefix("torch.")
    values = values.detach().cpu().contiguous()
    array = values.view(torch.uint16).numpy() if dtype == _AS_UINT16 else values.numpy()
    return Signal(kind, array, dtype, places)


def decode(signal: Signal, tokens: int, device: torch.device) -> Tensor:
    """Take a tensor off the wire, laid out over all N tokens; rows the teacher did not hear are zero.

    Raises:
        ModelError: the signal speaks of other tokens than the batch has.
    """
    if len(signal.values) != len(signal.places) or (len(signal.places) and signal.places[-1] >= tokens):
        raise ModelError(f"a signal of {len(signal.values)} rows does not fit a batch of {tokens} trained tokens")
    # A copy, because what Ray hands out is read-only memory and torch tensors are not.
    values = torch.from_numpy(signal.values.copy())
    values = values.view(torch.bfloat16) if signal.dtype == _AS_UINT16 else values
    full = torch.zeros(tokens, values.shape[1], dtype=values.dtype)
    full[torch.from_numpy(signal.places.copy())] = values
    return full.to(device)
