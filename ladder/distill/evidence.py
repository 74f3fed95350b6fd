"""What routing knows about a token: statistics of the teachers at temperature 1, one number a token each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
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
    """Statistics [N], float32 (float64 where the logits were). Without teacher 2: JS 0, its figures are teacher 1's."""

    confidence1: Tensor
    """Confidence of teacher 1, 0 to 1."""
    confidence2: Tensor
    js: Tensor
    """Jensen-Shannon divergence of the two teachers in nats, 0 to ln 2."""
    surprisal1: Tensor
    """-ln p_1(y) of the gold label y in nats; 0 where there is no label."""
    surprisal2: Tensor
    entropy1: Tensor
    """H(p_1) in nats, 0 to ln V."""
    entropy2: Tensor
    single_teacher: bool = False
    """There is no teacher 2: a blend is teacher 1 alone."""

    @property
    def gold_probability1(self) -> Tensor:
        """p_1(y) of the gold label, [N]; 1 where there is no label."""
        return (-self.surprisal1).exp()

    @property
    def gold_probability2(self) -> Tensor:
        """p_2(y) of the gold label, [N]; 1 where there is no label."""
        return (-self.surprisal2).exp()


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
    """Evidence from the statistics of one or two teachers, for V = ``columns``.

    Raises:
        LadderError: no confidence of that name, or fewer than two columns.
    """
    gold_N, measure = labels_N != IGNORE, chosen(CONFIDENCES, confidence, "training_params.confidence")
    first, second = told[0], told[-1]
    return Evidence(
        confidence1=measure(first.top1, first.entropy, columns),
        confidence2=measure(second.top1, second.entropy, columns),
        js=js_N,
        surprisal1=first.surprisal.where(gold_N, 0.0),
        surprisal2=second.surprisal.where(gold_N, 0.0),
        entropy1=first.entropy,
        entropy2=second.entropy,
        single_teacher=len(told) == 1,
    )


def concatenate(parts: Sequence[Evidence]) -> Evidence:
    """Evidence of all tokens from that of consecutive ones; all parts have the same number of teachers."""
    names = [field.name for field in fields(Evidence) if field.name != "single_teacher"]
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Evidence(**columns, single_teacher=parts[0].single_teacher)


@torch.no_grad()
def gather_evidence(
    teacher1_NV: Tensor, teacher2_NV: Tensor | None, labels_N: Tensor, confidence: str = "top1"
) -> Evidence:
    """Statistics of one or two teachers' logits [N, V] and the labels [N] (column of the gold token, or IGNORE).

    A row of a teacher that did not run on it may hold anything; its statistics are then worthless, and the caller
    routes it by its dreamer.

    Raises:
        LadderError: no confidence of that name.
    """
    logs = [log_probabilities(logits_NV) for logits_NV in (teacher1_NV, teacher2_NV) if logits_NV is not None]
    told = [_statistics(log_p_NV, labels_N) for log_p_NV in logs]
    js_N = jensen_shannon(logs[0], logs[1]) if len(logs) == 2 else torch.zeros_like(told[0].top1)
    return evidence_of(told, js_N, labels_N, confidence, teacher1_NV.shape[-1])


def average_over_rows(evidence: Evidence, row_N: Tensor) -> Evidence:
    """Confidence and JS replaced by their means over the tokens of the same row; the rest stays per token.

    ``row_N`` int64 [N] names each token's row (an example, also inside a packed sequence). All trained tokens of a row
    must be here at once. Sums are float64, so neither the place nor the neighbours of a row matter.
    """
    values = (evidence.confidence1, evidence.confidence2, evidence.js)
    confidence1_N, confidence2_N, js_N = row_means(values, row_N)
    return replace(evidence, confidence1=confidence1_N, confidence2=confidence2_N, js=js_N)


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
