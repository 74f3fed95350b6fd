"""Which columns of an output head take part: no padding rows past the tokenizer, no taboo tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ladder.distill.device import onto
from ladder.errors import DataError, ManifestError, ModelError

IGNORE = -100
"""The label of a token without gold."""


@dataclass(frozen=True)
class Columns:
    """The columns of a head that take part. Build it with :func:`columns`, which checks the numbers.

    Removing a column before the softmax renormalises the rest, and the column neither receives nor takes mass.
    """

    head_size: int
    """Columns of the head, padding included."""
    real_size: int
    """Columns that the tokenizer knows."""
    taboo_ids: tuple[int, ...] = ()
    """Ids that are removed, sorted, all below ``real_size``."""

    @property
    def size(self) -> int:
        """Columns that are left, V'."""
        return self.real_size - len(self.taboo_ids)

    @cached_property
    def kept_V(self) -> Tensor:
        """Original ids of the columns that are left, ascending, int64 [V'] on the CPU."""
        return self._index_H.ge(0).nonzero().squeeze(-1)

    @cached_property
    def _index_H(self) -> Tensor:
        """Original id to column among those left; IGNORE where it is removed. int64 [head_size]."""
        kept_H = torch.arange(self.head_size) < self.real_size
        kept_H[list(self.taboo_ids)] = False
        return (kept_H.cumsum(0) - 1).masked_fill(~kept_H, IGNORE)

    def select(self, logits_NV: Tensor) -> Tensor:
        """Logits [N, head_size] without the removed columns, [N, V']. The same tensor when nothing is removed.

        Raises:
            ModelError: the logits have another width than the head.
        """
        if logits_NV.shape[-1] != self.head_size:
            raise ModelError(f"the logits have {logits_NV.shape[-1]} columns, expected {self.head_size}")
        if self.taboo_ids:
            return logits_NV.index_select(-1, onto(self.kept_V, logits_NV.device))
        return logits_NV if self.size == self.head_size else logits_NV[..., : self.size]

    def relabel(self, labels_N: Tensor) -> Tensor:
        """Original ids [N] to columns among those left, int64 [N]. IGNORE stays IGNORE, a taboo id becomes IGNORE.

        Raises:
            DataError: a label that is neither IGNORE nor an id of the tokenizer.
        """
        self._check(labels_N)
        gold_N = labels_N != IGNORE
        index_H = self._index_H.to(labels_N.device)
        return index_H[labels_N.long().where(gold_N, 0)].where(gold_N, IGNORE)

    def is_dropped(self, labels_N: Tensor) -> Tensor:
        """Whether the gold label is taboo, bool [N]: such a position must leave the batch.

        Raises:
            DataError: a label that is neither IGNORE nor an id of the tokenizer.
        """
        return (self.relabel(labels_N) == IGNORE) & (labels_N != IGNORE)

    def _check(self, labels_N: Tensor) -> None:
        strange_N = (labels_N != IGNORE) & ((labels_N < 0) | (labels_N >= self.real_size))
        if strange_N.any():
            found = int(labels_N[strange_N][0])
            raise DataError(
                f"the label {found} is no token id, expected 0 to {self.real_size - 1} or {IGNORE}",
                remedy="encode the data with the model's own tokenizer",
            )


def column_of(labels_N: Tensor) -> Tensor:
    """A column everywhere, int64 [N]: the label's, or the first where there is no label."""
    return labels_N.long().where(labels_N != IGNORE, 0)


def columns(head_size: int, real_size: int, taboo_ids: Iterable[int] = ()) -> Columns:
    """The columns of a head of ``head_size`` for a tokenizer of ``real_size`` ids, less the taboo ids.

    Raises:
        ModelError: the head has fewer columns than the tokenizer has ids.
        ManifestError: a taboo id that the tokenizer does not have, or fewer than two columns left.
    """
    taboo = tuple(sorted(set(taboo_ids)))
    if head_size < real_size:
        raise ModelError(f"the output head has {head_size} columns, expected at least the tokenizer's {real_size}")
    if strange := [token for token in taboo if not 0 <= token < real_size]:
        raise ManifestError(
            f"{strange[0]} is no token id, expected 0 to {real_size - 1}",
            where="stabilizers.taboo_token_ids",
        )
    if real_size - len(taboo) < 2:
        raise ManifestError(
            f"{real_size - len(taboo)} of {real_size} tokens are left, expected at least 2",
            where="stabilizers.taboo_token_ids",
            remedy="forbid fewer tokens",
        )
    return Columns(head_size, real_size, taboo)
