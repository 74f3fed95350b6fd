"""What routing knows about a token: statistics of the teachers at temperature 1, one number a token each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ladder.distill.device import onto
from ladder.distill.divergence import chosen, expectation, jensen_shannon, log_probabilities
from ladder.distill.vocabulary import IGNORE, column_of
from ladder.errors import LadderError


def entropy(log_p_NV: Tensor) -> Tensor:
    """Shannon entropy H(p) in nats, [N], 0 to ln V. 0 ln 0 counts as 0."""
    return -expectation(log_p_NV, log_p_NV)


def top1(log_p_NV: Tensor) -> Tensor:
    """Probability of the likeliest token, [N], 1/V to 1."""
    return log_p_NV.amax(-1).exp()


def normalized_entropy_confidence(log_p_NV: Tensor) -> Tensor:
    """1 - H(p) / ln V, [N], 0 (uniform) to 1 (certain). V is the number of columns given; rounding is clamped away.

    Raises:
        LadderError: fewer than two columns.
    """
    return normalized(entropy(log_p_NV), log_p_NV.shape[-1])


def normalized(entropy_N: Tensor, size: int) -> Tensor:
    """1 - H / ln V of entropies in nats, [N], 0 to 1.

    Raises:
        LadderError: fewer than two columns.
    """
    if size < 2:
        raise LadderError(f"a distribution over {size} token has no normalised entropy, expected at least 2")
    return (1 - entropy_N / math.log(size)).clamp(0.0, 1.0)


CONFIDENCES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "top1": lambda top1_N, entropy_N, size: top1_N,
    "entropy": lambda top1_N, entropy_N, size: normalized(entropy_N, size),
}
"""The words of ``training_params.confidence``: (top-1 probability, entropy in nats, columns) -> [N]."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Statistics of the S teachers that were heard, in their order. Tensors are [N], float32 (float64 where the logits
    were)."""

    confidence: tuple[Tensor, ...]
    """Of each teacher, 0 to 1."""
    surprisal: tuple[Tensor, ...]
    """-ln p(y) of the gold label y in nats; 0 where there is no label."""
    entropy: tuple[Tensor, ...]
    """H(p) in nats, 0 to ln V."""
    js: Tensor
    """Jensen-Shannon divergence of all of them in nats, 0 to ln S; 0 for one."""
    prior: tuple[Tensor, ...] | None = None
    """What else is known of each teacher's worth, at least 0: its weight in a blend is multiplied by it. Nothing where
    it is None."""

    def __len__(self) -> int:
        """S."""
        return len(self.confidence)

    @property
    def gold_probability(self) -> tuple[Tensor, ...]:
        """p(y) of the gold label, [N] each; 1 where there is no label."""
        return tuple((-surprisal_N).exp() for surprisal_N in self.surprisal)


class TeacherStatistics(Protocol):
    """One teacher's statistics at temperature 1, [N] each."""

    @property
    def top1(self) -> Tensor:
        """Probability of the likeliest token."""

    @property
    def entropy(self) -> Tensor:
        """H(p) in nats."""

    @property
    def surprisal(self) -> Tensor:
        """-ln p(y) in nats; anything where there is no label."""


class _Statistics(NamedTuple):
    """A voice whose whole log-probabilities are at hand."""

    top1: Tensor
    entropy: Tensor
    surprisal: Tensor


def evidence_of(
    told: Sequence[TeacherStatistics], js_N: Tensor, labels_N: Tensor, confidence: str, columns: int
) -> Evidence:
    """Evidence from the statistics of teachers, for V = ``columns``.

    Raises:
        LadderError: no confidence of that name, or fewer than two columns.
    """
    gold_N, measure = labels_N != IGNORE, chosen(CONFIDENCES, confidence, "training_params.confidence")
    return Evidence(
        tuple(measure(one.top1, one.entropy, columns) for one in told),
        tuple(one.surprisal.where(gold_N, 0.0) for one in told),
        tuple(one.entropy for one in told),
        js_N,
    )


def concatenate(parts: Sequence[Evidence]) -> Evidence:
    """Evidence of all tokens from that of consecutive ones; all parts have the same teachers, and no prior yet."""

    def joined(of: Callable[[Evidence], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(torch.cat(each) for each in zip(*map(of, parts), strict=True))

    return Evidence(
        joined(lambda part: part.confidence),
        joined(lambda part: part.surprisal),
        joined(lambda part: part.entropy),
        torch.cat([part.js for part in parts]),
    )


@torch.no_grad()
def gather_evidence(teachers: Sequence[Tensor | None], labels_N: Tensor, confidence: str = "top1") -> Evidence:
    """Statistics of teachers' logits [N, V] and the labels [N] (column of the gold token, or IGNORE); absent teachers
    (None) are passed over.

    A row of a teacher that did not run on it may hold anything; its statistics are then worthless, and the caller
    routes it by its dreamer.

    Raises:
        LadderError: no confidence of that name.
    """
    logs = [log_probabilities(logits_NV) for logits_NV in teachers if logits_NV is not None]
    told = [_statistics(log_p_NV, labels_N) for log_p_NV in logs]
    js_N = jensen_shannon(*logs) if len(logs) > 1 else torch.zeros_like(told[0].top1)
    return evidence_of(told, js_N, labels_N, confidence, logs[0].shape[-1])


def average_over_rows(evidence: Evidence, row_N: Tensor) -> Evidence:
    """Confidence, JS and prior replaced by their means over the tokens of the same row; the rest stays per token.

    ``row_N`` int64 [N] names each token's row (an example, also inside a packed sequence). All trained tokens of a row
    must be here at once. Sums are float64, so neither the place nor the neighbours of a row matter.
    """
    count, prior = len(evidence), evidence.prior or ()
    means = row_means((*evidence.confidence, evidence.js, *prior), row_N)
    prior_means = tuple(means[count + 1 :]) if evidence.prior is not None else None
    return replace(evidence, confidence=tuple(means[:count]), js=means[count], prior=prior_means)


def row_means(values: Sequence[Tensor], row_N: Tensor) -> list[Tensor]:
    """Each of these statistics [N] with every token's replaced by the mean of its row.

    Args:
        row_N: which row each token belongs to; where it lies on the CPU, nobody waits for a GPU.
    """
    _, index_N = torch.unique(row_N.cpu(), return_inverse=True)
    counts_R = torch.bincount(index_N)

    def mean(value_N: Tensor) -> Tensor:
        sums_R = _sums(value_N.double(), index_N, counts_R)
        place_N = onto(index_N, value_N.device)
        return (sums_R / onto(counts_R, value_N.device))[place_N].to(value_N.dtype)

    return [mean(value_N) for value_N in values]


def _sums(value_N: Tensor, index_N: Tensor, counts_R: Tensor) -> Tensor:
    """Sums over rows, float64 [R], the same each time that they are taken of the same numbers."""
    if value_N.device.type == "cpu":
        return torch.zeros(counts_R.shape, dtype=torch.float64).index_add_(0, index_N, value_N)
    return _sums_in_order(value_N, index_N, counts_R)


def _sums_in_order(value_N: Tensor, index_N: Tensor, counts_R: Tensor) -> Tensor:
    """As ``index_add_``, which on a GPU adds in whichever order its threads come, and rounds differently each time.
    Here the values of a row lie side by side in the order of the tokens, and one sum goes through each stretch."""
    device = value_N.device
    order_N = onto(index_N.argsort(stable=True), device)
    return torch.segment_reduce(value_N[order_N], "sum", lengths=onto(counts_R, device), unsafe=True)


def _statistics(log_p_NV: Tensor, labels_N: Tensor) -> _Statistics:
    surprisal_N = -log_p_NV.gather(-1, column_of(labels_N).unsqueeze(-1)).squeeze(-1)
    return _Statistics(top1(log_p_NV), entropy(log_p_NV), surprisal_N)
