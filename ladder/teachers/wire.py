"""The codec between torch and the wire: numpy arrays with a dtype tag, because numpy has no bfloat16 and Ray moves
numpy arrays without a copy; and the narrower wire of the k likeliest tokens, with what makes them enough."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ladder.distill import Columns, columns, entropy, log_probabilities, onto
from ladder.errors import ModelError

CHUNK = 256
"""Rows that are upcast to float32 at a time."""


@dataclass(frozen=True)
class Truncation:
    """What is kept of a distribution over the vocabulary.

    Args:
        k: tokens kept; all permitted ones where there are fewer.
        temperature: of the objective, at which the mass of the rest must be exact.
        vocabulary: token ids of the tokenizer; a head may have more columns, which take no part.
        taboo_ids: ids that are removed before anything else.
    """

    k: int
    temperature: float
    vocabulary: int
    taboo_ids: tuple[int, ...] = ()

    @property
    def permitted(self) -> int:
        """Tokens that take part."""
        return self.vocabulary - len(self.taboo_ids)

    @property
    def kept(self) -> int:
        """K: tokens of which the logit is sent."""
        return min(self.k, self.permitted)

    def columns(self, head_size: int) -> Columns:
        """The columns of a head that take part."""
        return columns(head_size, self.vocabulary, self.taboo_ids)


@dataclass(frozen=True, eq=False)
class TopK:
    """M truncated distributions, all float32 but the ids.

    The logits are float32 because the statistics of a peaked distribution are differences of almost equal numbers:
    float16 would keep three digits of them and overflow at 65,504, bfloat16 two. The mass of the rest is a logsumexp
    of its own, not one over all columns: 1 - (mass of the top) has no correct digit left where the rest is small.
    """

    logits_MK: Tensor
    """Descending."""
    ids_MK: Tensor
    """Token ids, int32."""
    tail_M: Tensor
    """logsumexp of the logits that are not sent, at temperature 1; -inf where there are none."""
    tail_at_T_M: Tensor
    """The same of logits / T."""
    entropy_M: Tensor
    """H(p) in nats at temperature 1, over all permitted tokens."""
    surprisal_M: Tensor
    """-ln p(next token) in nats at temperature 1; 0 where the next token is taboo."""


@torch.no_grad()
def capture(logits_MH: Tensor, next_ids_M: Tensor, truncation: Truncation) -> TopK:
    """Truncate full logits [M, H]; statistics are taken in float32 over all permitted tokens.

    Args:
        next_ids_M: the token that follows in the text, whether or not it is a gold label.

    Raises:
        ModelError: the head has fewer columns than the tokenizer has ids.
        DataError: a next token that the tokenizer does not know.
    """
    keep = truncation.columns(logits_MH.shape[-1])
    # On the CPU, where they come from: a check on a GPU would wait for it.
    labels_M = onto(keep.relabel(next_ids_M.cpu()), logits_MH.device)
    parts = [
        _capture(keep.select(logits).float(), labels, truncation)
        for logits, labels in zip(logits_MH.split(CHUNK), labels_M.split(CHUNK), strict=True)
    ]
    logits, places, *figures = (torch.cat(fields) for fields in zip(*parts, strict=True))
    ids_MK = onto(keep.kept_V, places.device)[places].to(torch.int32)
    return TopK(logits, ids_MK, *figures)


def joined(parts: Sequence[TopK]) -> TopK:
    """One after the other, where they lie."""
    return TopK(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(TopK)})


def _capture(logits_nV: Tensor, labels_n: Tensor, truncation: Truncation) -> tuple[Tensor, ...]:
    top = logits_nV.topk(truncation.kept, dim=-1)
    rest_nV = logits_nV.scatter(-1, top.indices, float("-inf"))
    log_p_nV = log_probabilities(logits_nV)
    surprisal_n = -log_p_nV.gather(-1, labels_n.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return (
        top.values,
        top.indices,
        rest_nV.logsumexp(-1),
        (rest_nV / truncation.temperature).logsumexp(-1),
        entropy(log_p_nV),
        surprisal_n.where(labels_n >= 0, 0.0),
    )


def rebuild(top: TopK, truncation: Truncation, out_nV: Tensor) -> Tensor:
    """Write logits [n, V] whose distribution at temperature T has the true probability of every token that was sent
    and, in equal parts, the true mass of the rest. Tokens that take no part get -inf.

    Raises:
        ModelError: ``out_nV`` has not one column for each token id.
    """
    if out_nV.shape[-1] != truncation.vocabulary:
        raise ModelError(f"found {out_nV.shape[-1]} columns for top-k logits, expected {truncation.vocabulary}")
    left = truncation.permitted - truncation.kept
    share = torch.tensor(float(max(left, 1))).log().item()
    out_nV.copy_((truncation.temperature * (top.tail_at_T_M - share)).unsqueeze(-1).expand_as(out_nV))
    if truncation.taboo_ids:
        out_nV.index_fill_(1, onto(torch.tensor(truncation.taboo_ids), out_nV.device), float("-inf"))
    return out_nV.scatter_(1, top.ids_MK.long(), top.logits_MK.to(out_nV.dtype))


Kind = Literal["hidden", "logits", "topk"]
ORIGIN = "origin"
"""The array that says which of a teacher's own sources spoke, int32; of teachers that are no models."""
Rows = dict[str, np.ndarray]
"""The arrays of a signal by name. The first axis of each runs over the same tokens."""

_FIELDS = {"logits_MK": "values"} | {
    field.name: field.name.rsplit("_M", 1)[0] for field in fields(TopK) if field.name != "logits_MK"
}
"""The name on the wire of each part of a truncated distribution."""


@dataclass(frozen=True, eq=False)
class Signal:
    """One teacher's signal for the tokens of a micro-batch that it read.

    Args:
        kind: final hidden states [M, D], logits [M, H], or truncated distributions.
        dtype: name of the torch dtype of ``values``.
        rows: the arrays; ``values`` in all kinds (bfloat16 as uint16), which is all but for ``topk``: there it is the
            logits [M, K], beside ``ids`` [M, K] and the statistics ``tail``, ``tail_at_T``, ``entropy`` and
            ``surprisal`` [M] (0 without a gold label), and ``origin`` [M] of a teacher with sources of its own.
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
        if set(self.rows) - {ORIGIN} != expected or (self.truncation is not None) != (self.kind == "topk"):
            raise ModelError(f"a {self.kind} signal holds {sorted(self.rows)}, expected {sorted(expected)}")
        if self.values.dtype != _numpy_dtype(self.dtype):
            raise ModelError(f"a signal tagged {self.dtype} holds {self.values.dtype}")
        counts = {len(array) for array in (*self.rows.values(), self.places)}
        places = np.concatenate([[-1], self.places, [tokens]])
        if len(counts) != 1 or (np.diff(places) < 1).any():
            message = f"a signal of {len(self.values)} rows does not fit a batch of {tokens} trained tokens"
            raise ModelError(message, where=f"rows for {len(self.places)} places")


def merged(parts: Sequence[Signal]) -> Signal:
    """One signal out of those of the replicas of a teacher, which speak of different tokens of a micro-batch. Where
    only one of them has something to say, its signal is handed on without a copy.

    Raises:
        ModelError: they do not say the same kind of thing, or two of them speak of one token.
    """
    kinds = {(part.kind, part.dtype, part.truncation) for part in parts}
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{kind} in {dtype}" for kind, dtype, _ in kinds))
        raise ModelError(
            f"the replicas of a teacher send {told}", remedy="let all of them run on the same kind of device"
        )
    speaking = [part for part in parts if len(part.places)] or [parts[0]]
    if len(speaking) == 1:
        return speaking[0]
    places = np.sort(np.concatenate([part.places for part in speaking]))
    if (np.diff(places) == 0).any():
        raise ModelError("two replicas of a teacher speak of the same token")
    rows = {name: np.empty((len(places), *array.shape[1:]), array.dtype) for name, array in speaking[0].rows.items()}
    for part in speaking:
        row_M = np.searchsorted(places, part.places)
        for name, array in part.rows.items():
            rows[name][row_M] = array
    return replace(speaking[0], rows=rows, places=places)


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
    return onto(tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor, device)


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
