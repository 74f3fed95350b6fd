"""The k likeliest tokens of a distribution, with what makes them enough: the rest's mass and exact statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder.distill import Columns, columns, entropy
from ladder.distill.probabilities import log_probabilities
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
    labels_M = keep.relabel(next_ids_M)
    parts = [
        _capture(keep.select(logits).float(), labels, truncation)
        for logits, labels in zip(logits_MH.split(CHUNK), labels_M.split(CHUNK), strict=True)
    ]
    logits, places, *figures = (torch.cat(fields) for fields in zip(*parts, strict=True))
    ids_MK = keep.kept_V.to(places.device)[places].to(torch.int32)
    return TopK(logits, ids_MK, *figures)


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
    share = torch.tensor(float(max(left, 1)), device=out_nV.device).log()
    out_nV.copy_((truncation.temperature * (top.tail_at_T_M - share)).unsqueeze(-1).expand_as(out_nV))
    if truncation.taboo_ids:
        out_nV.index_fill_(1, torch.tensor(truncation.taboo_ids, device=out_nV.device), float("-inf"))
    return out_nV.scatter_(1, top.ids_MK.long(), top.logits_MK.to(out_nV.dtype))
