"""What a tile goes through, as two functions of tensors, compiled or not: listen to the teachers, teach the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from ladder.distill.compiled import compiled
from ladder.distill.evidence import Evidence, Voice, evidence_of
from ladder.distill.factors import Factors, shares_of
from ladder.distill.objective import Objective, TokenLosses
from ladder.distill.routing import Routing, RoutingSettings, route
from ladder.distill.source import Known
from ladder.distill.tile import Figures, figures, turn_into_gradient_
from ladder.distill.tokens import Decided
from ladder.distill.vocabulary import column_of


@dataclass(frozen=True)
class Kernels:
    """One pair for each objective, routing table and size of vocabulary."""

    listen: Callable[[Sequence[Tensor], Sequence[Known | None], Tensor], tuple[list[Figures], Evidence]]
    """:func:`listen` with its other arguments."""
    teach: Callable[..., tuple[TokenLosses, Routing]]
    """:func:`teach` for the objective and the table, with its other arguments."""


@cache
def kernels_of(objective: Objective, settings: RoutingSettings, size: int, compile: bool) -> Kernels:
    """The kernels for V = ``size`` columns that take part; compiled ones are kept for the life of the process."""

    def listen_kernel(
        logits: Sequence[Tensor], known: Sequence[Known | None], labels_n: Tensor
    ) -> tuple[list[Figures], Evidence]:
        return listen(logits, known, labels_n, objective.temperature, settings.confidence, size)

    def teach_kernel(*given: Any) -> tuple[TokenLosses, Routing]:
        return teach(objective, settings, *given)

    if not compile:
        return Kernels(listen_kernel, teach_kernel)
    return Kernels(compiled(listen_kernel), compiled(teach_kernel))


def listen(
    logits: Sequence[Tensor],
    known: Sequence[Known | None],
    labels_n: Tensor,
    temperature: float,
    confidence: str,
    size: int,
) -> tuple[list[Figures], Evidence]:
    """Figures of one or two teachers' logits [n, V], and what routing reads.

    Args:
        known: of each teacher what it knows exactly, which replaces what its logits say; None where they are exact.
        labels_n: id of the gold token, or IGNORE.
    """
    found, js_n = figures(logits, column_of(labels_n), temperature)
    voices: list[Voice] = [exact or one for exact, one in zip(known, found, strict=True)]
    return found, evidence_of(voices, js_n, labels_n, confidence, size)


def teach(
    objective: Objective,
    settings: RoutingSettings,
    student_nV: Tensor,
    teachers: Sequence[tuple[Tensor, Figures]],
    evidence: Evidence | None,
    tokens: Decided,
    scale: float,
    cap: float | None,
) -> tuple[TokenLosses, Routing]:
    """Losses and final routes of a tile; the student's logits give way to the gradient of its raw logits.

    Args:
        teachers: logits [n, V] and figures of those who were asked about these tokens, teacher 1 first.
        evidence: what tokens that are still open are routed by; None where none is.
    """
    routing, labels_n = tokens.routing, tokens.labels_n
    if evidence is not None:
        routing = route(evidence, labels_n, settings).where(tokens.open_n, routing)
    dtype = student_nV.dtype
    factors = Factors.of(routing, labels_n, tokens.dream_n, objective, dtype)
    weights, shares = factors.weights(tokens.weight_n), shares_of(routing, len(teachers), dtype)
    terms = turn_into_gradient_(student_nV, objective, teachers, shares, column_of(labels_n), weights, scale, cap)
    return factors.losses(terms), routing
