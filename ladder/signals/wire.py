"""The codec between torch and the wire: numpy arrays with a dtype tag, because numpy has no bfloat16 and Ray moves
numpy without a copy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ladder.errors import ModelError
from ladder.signals.topk import TopK, Truncation

Kind = Literal["hidden", "logits", "topk"]
Rows = dict[str, np.ndarray]
"""The arrays of a signal by name. The first axis of each runs over the same tokens."""

_FIELDS = {"logits_MK": "values"} | {
    field.name: field.name.rsplit("_M", 1)[0] for field in fields(TopK) if field.name != "logits_MK"
}
"""The name on the wire of each part of a truncated distribution."""


@dataclass(frozen=True, eq=False)
class Signal:
    """What one teacher says about the tokens of one micro-batch that it heard.

    Args:
        kind: final hidden states [M, D], logits [M, H], or truncated distributions.
        dtype: name of the torch dtype of ``values``.
        rows: the arrays; ``values`` in all kinds (bfloat16 as uint16), which is all but for ``topk``: there it is the
            logits [M, K], beside ``ids`` [M, K] and the statistics ``tail``, ``tail_at_T``, ``entropy`` and
            ``surprisal`` [M] (0 without a gold label).
        places: which M of the batch's N tokens these are, ascending.
        truncation: what was kept, for ``topk``.
    """

    kind: Kind
    dtype: str
    rows: Mapping[str, np.ndarray]
    places: np.ndarray
    truncation: Truncation | None = None

    @property
    def values(self) -> np.ndarray:
        return self.rows["values"]

    @property
    def nbytes(self) -> int:
        """Bytes of everything that crosses."""
        return self.places.nbytes + sum(array.nbytes for array in self.rows.values())

    def check(self, tokens: int) -> None:
        """Whether it is well-formed and fits a batch of ``tokens`` trained tokens.

        Raises:
            ModelError: it does not.
        """
        expected = set(_FIELDS.values()) if self.kind == "topk" else {"values"}
        if set(self.rows) != expected or (self.truncation is not None) != (self.kind == "topk"):
            raise ModelError(f"a {self.kind} signal holds {sorted(self.rows)}, expected {sorted(expected)}")
        if self.values.dtype != _numpy_dtype(self.dtype):
            raise ModelError(f"a signal tagged {self.dtype} holds {self.values.dtype}")
        counts = {len(array) for array in (*self.rows.values(), self.places)}
        places = np.concatenate([[-1], self.places, [tokens]])
        if len(counts) != 1 or (np.diff(places) < 1).any():
            message = f"a signal of {len(self.values)} rows does not fit a batch of {tokens} trained tokens"
            raise ModelError(message, where=f"rows for {len(self.places)} places")


def encode(values: Tensor) -> Rows:
    """Put hidden states or logits into wire arrays."""
    return {"values": _array(values)}


def encode_topk(top: TopK) -> Rows:
    """Put truncated distributions into wire arrays."""
    return {name: _array(getattr(top, field)) for field, name in _FIELDS.items()}


def decode(array: np.ndarray, dtype: str, device: torch.device) -> Tensor:
    """A tensor over the same memory, moved only where the device has memory of its own. Nobody may write to it."""
    with warnings.catch_warnings():
        # What Ray hands out is read-only; torch has no read-only tensors and warns.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        tensor = torch.from_numpy(array)
    return (tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor).to(device)


def decode_topk(signal: Signal, device: torch.device) -> TopK:
    """The truncated distributions of a signal, over the same memory."""
    arrays = {field: signal.rows[name] for field, name in _FIELDS.items()}
    return TopK(**{field: decode(array, str(array.dtype), device) for field, array in arrays.items()})


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def _array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu().contiguous()
    return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)
