"""What the loss asks of a teacher: logits for some of a batch's trained tokens, a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ladder.errors import LadderError


@dataclass(frozen=True, eq=False)
class Known:
    """Statistics of n tokens at temperature 1 that were taken where the whole distribution was at hand.

    A teacher whose logits arrive truncated brings them along, so that what routes by one teacher alone stays exact.
    All are float32 [n].
    """

    top1: Tensor
    """Probability of the likeliest token, 0 to 1."""
    entropy: Tensor
    """H(p) in nats."""
    surprisal: Tensor
    """-ln p(y) of the gold label in nats; 0 where there is no label."""
    tail: Tensor
    """Probability of all tokens whose logits did not arrive, 0 to 1."""


class Source(Protocol):
    """One teacher's word on the N trained tokens of a batch."""

    @property
    def speaks_N(self) -> Tensor:
        """Which tokens this teacher heard, bool [N]."""

    @property
    def head_size(self) -> int:
        """Columns of its head, padding included."""

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        """Write the logits of these tokens over the first V columns into ``out_nV``, and return it.

        ``rows_n`` are positions among the N tokens, int64, all of them heard.
        """

    def known(self, rows_n: Tensor) -> Known | None:
        """Exact statistics of these tokens; None where the logits themselves are exact."""


Teachers = tuple[Source | None, Source | None]
"""Teacher 1 and teacher 2, where there are any."""


def heard(teachers: Teachers, rows_n: Tensor) -> list[Source]:
    """The teachers that heard these tokens.

    Raises:
        LadderError: teacher 1 is not among them, or a teacher heard some of the tokens only.
    """
    speaks = [source is not None and bool(source.speaks_N[rows_n].all()) for source in teachers]
    partly = [source is not None and bool(source.speaks_N[rows_n].any()) for source in teachers]
    if not speaks[0] or speaks != partly:
        number = 1 if not speaks[0] else 2
        raise LadderError(f"teacher {number} did not hear all {len(rows_n)} tokens that are to be routed")
    return [source for source, here in zip(teachers, speaks, strict=True) if source is not None and here]
