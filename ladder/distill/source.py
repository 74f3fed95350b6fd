"""What the loss may ask of a teacher: logits of chosen tokens, and exact statistics where its logits are not exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Known:
    """Statistics of a teacher's full distribution over the permitted vocabulary at temperature 1, as the teacher itself
    took them. All float32 [n]."""

    top1: Tensor
    """Probability of the likeliest token."""
    entropy: Tensor
    """H(p) in nats."""
    surprisal: Tensor
    """-ln p(y) of the gold label in nats; 0 where there is no label."""
    tail: Tensor
    """Probability outside the k likeliest tokens, 0 to 1."""


class Source(Protocol):
    """One teacher's word on the N trained tokens of a batch."""

    @property
    def speaks_N(self) -> Tensor:
        """Which of the N tokens this teacher heard, bool [N]."""

    @property
    def head_size(self) -> int:
        """Columns of its logits, those of padding included where they are sent."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        """Write the first V columns of the logits of some tokens into ``out_nV`` and return it.

        Args:
            rows_n: int64 [n], which of the N tokens; the teacher heard all of them.
            out_nV: [n, V], V at most ``head_size``.
        """

    def known(self, rows_n: Tensor) -> Known | None:
        """Exact statistics of these tokens; None where the logits themselves are exact."""
