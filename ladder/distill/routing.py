"""Who teaches a token: both teachers blended, one of them, the gold label, or nobody.

Routing reads statistics of the teachers only; it never sees the student, so every implementation of the loss can be
given the same routes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from ladder.distill.divergence import chosen
from ladder.distill.evidence import Evidence, average_over_rows, gather_evidence
from ladder.distill.vocabulary import IGNORE
from ladder.errors import LadderError

__all__ = [
    "ROUTERS",
    "Evidence",
    "Route",
    "Routing",
    "RoutingSettings",
    "gather_evidence",
    "route",
    "route_agreement",
    "route_gold",
    "route_surprise",
]


class Route(IntEnum):
    """Where the target of a token comes from."""

    SKIP = 0
    GOLD = 1
    TEACHER1 = 2
    TEACHER2 = 3
    BLENDED = 4


@dataclass(frozen=True)
class RoutingSettings:
    """The part of ``training_params`` that decides routes; the manifest explains each field.

    Raises:
        LadderError: ``sequence`` granularity with surprise routing, where the mean hides the one surprising token.
    """

    routing: Literal["agreement", "surprise", "gold"]
    js_threshold: float = 0.1
    confidence_threshold: float = 0.8
    agreement_confidence: float | None = None
    gold_weight: float = 0.5
    surprise: Literal["probability", "entropy"] = "probability"
    surprise_tau: float = 0.5
    surprise_margin: float = 1.0
    granularity: Literal["token", "sequence"] = "token"
    confidence: Literal["top1", "entropy"] = "top1"

    def __post_init__(self) -> None:
        if self.granularity == "sequence" and self.routing == "surprise":
            raise LadderError(
                "surprise routing was asked for by sequence, expected by token",
                where="training_params.granularity",
                remedy="use granularity token, or routing agreement",
            )


@dataclass(frozen=True, eq=False)
class Routing:
    """One decision a token. All tensors are [N]."""

    route_N: Tensor
    """:class:`Route`, int8."""
    weight1_N: Tensor
    """Share of teacher 1 in the target, 0 to 1: 1 on TEACHER1, 0 on TEACHER2, and 0 where no teacher teaches."""
    gain_N: Tensor
    """g, the weight of the divergence: the gold weight on GOLD, 0 on SKIP, 1 elsewhere."""
    js_N: Tensor
    """The JS that was routed by, in nats (the row's mean with granularity ``sequence``); 0 on dreams."""

    @property
    def trained_N(self) -> Tensor:
        """Everything but SKIP, bool [N]."""
        return ~self.on(Route.SKIP)

    def on(self, route: Route) -> Tensor:
        """Which tokens take this route, bool [N]."""
        return is_on(self.route_N, route)

    def at(self, rows_n: Tensor | slice) -> Routing:
        """The decisions for some of the tokens."""
        return Routing(self.route_N[rows_n], self.weight1_N[rows_n], self.gain_N[rows_n], self.js_N[rows_n])

    def where(self, rows_N: Tensor, other: Routing) -> Routing:
        """These decisions where ``rows_N`` holds, the other ones elsewhere, in the dtype of the others."""
        return Routing(
            self.route_N.where(rows_N, other.route_N),
            self.weight1_N.to(other.weight1_N.dtype).where(rows_N, other.weight1_N),
            self.gain_N.to(other.gain_N.dtype).where(rows_N, other.gain_N),
            self.js_N.to(other.js_N.dtype).where(rows_N, other.js_N),
        )

    def replaced(self, rows_n: Tensor, part: Routing) -> Routing:
        """These decisions with those of some tokens replaced."""
        return Routing(
            self.route_N.index_copy(0, rows_n, part.route_N),
            self.weight1_N.index_copy(0, rows_n, part.weight1_N.to(self.weight1_N.dtype)),
            self.gain_N.index_copy(0, rows_n, part.gain_N.to(self.gain_N.dtype)),
            self.js_N.index_copy(0, rows_n, part.js_N.to(self.js_N.dtype)),
        )


def is_on(route_N: Tensor, route: Route) -> Tensor:
    """Which routes are this one, bool [N]. Compares with a plain number: within ``torch.compile``, a tensor compared
    with an enum is the constant False."""
    return route_N == int(route)


def skipped(like_N: Tensor) -> Routing:
    """Nobody teaches these tokens."""
    nothing_N = torch.zeros(like_N.shape, device=like_N.device)
    return Routing(nothing_N.to(torch.int8), nothing_N, nothing_N, nothing_N)


Router = Callable[[Evidence | None, Tensor, RoutingSettings], Routing]


def route_agreement(evidence: Evidence | None, labels_N: Tensor, settings: RoutingSettings) -> Routing:
    """The table, first that applies: teachers agree, teacher 1 is confident, there is a gold label, skip.

    Raises:
        LadderError: there is no evidence.
    """
    evidence = _demand(evidence, "agreement")
    route_N = _table(evidence, labels_N, settings)
    return _routing(route_N, _confidence_share(evidence), settings.gold_weight, evidence.js)


def route_surprise(evidence: Evidence | None, labels_N: Tensor, settings: RoutingSettings) -> Routing:
    """Labelled tokens: gold with g = 1 where both teachers are surprised by the label, else a blend in which a
    teacher weighs as much as the probability it gave the label. Unlabelled tokens: as
    :func:`route_agreement`.

    Raises:
        LadderError: there is no evidence, or no surprise of that name.
    """
    evidence = _demand(evidence, "surprise")
    gold_N = labels_N != IGNORE
    surprised_N = chosen(SURPRISES, settings.surprise, "training_params.surprise")(evidence, settings)
    labelled_N = torch.where(surprised_N, int(Route.GOLD), int(Route.BLENDED)).to(torch.int8)
    route_N = labelled_N.where(gold_N, _table(evidence, labels_N, settings))
    share_N = _gold_share(evidence).where(gold_N, _confidence_share(evidence))
    return _routing(route_N, share_N, 1.0, evidence.js)


def route_gold(evidence: Evidence | None, labels_N: Tensor, settings: RoutingSettings) -> Routing:
    """Plain training on labels: every labelled token gold with g = 1, the rest skipped. Reads no evidence."""
    route_N = torch.where(labels_N != IGNORE, int(Route.GOLD), int(Route.SKIP)).to(torch.int8)
    nothing_N = torch.zeros(labels_N.shape, device=labels_N.device)
    return _routing(route_N, nothing_N, 1.0, nothing_N)


ROUTERS: dict[str, Router] = {"agreement": route_agreement, "surprise": route_surprise, "gold": route_gold}
"""The words of ``training_params.routing``, and ``gold`` for the methods without teachers."""


def route(
    evidence: Evidence | None,
    labels_N: Tensor,
    settings: RoutingSettings,
    dreamer_N: Tensor | None = None,
    row_N: Tensor | None = None,
) -> Routing:
    """Route each token.

    Args:
        evidence: statistics of the teachers; not needed with ``gold``.
        labels_N: column of the gold token, or IGNORE; int [N].
        dreamer_N: 0 no dream, 1 or 2 dreamt by teacher 1 or 2; int8 [N]. A dream goes to its dreamer with g = 1.
        row_N: row of each token, int64 [N]; needed with granularity ``sequence``.

    Raises:
        LadderError: evidence or rows are needed and absent, or the settings name no router.
    """
    if settings.granularity == "sequence" and evidence is not None:
        evidence = average_over_rows(evidence, _demand_rows(row_N))
    routing = chosen(ROUTERS, settings.routing, "training_params.routing")(evidence, labels_N, settings)
    return routing if dreamer_N is None else _with_dreams(routing, dreamer_N)


def _table(evidence: Evidence, labels_N: Tensor, settings: RoutingSettings) -> Tensor:
    agree_N = evidence.js < settings.js_threshold
    if settings.agreement_confidence is not None:
        agree_N &= torch.maximum(evidence.confidence1, evidence.confidence2) >= settings.agreement_confidence
    # From the last line of the table to the first, so that the first that applies wins.
    route_N = torch.where(labels_N != IGNORE, int(Route.GOLD), int(Route.SKIP))
    route_N = torch.where(evidence.confidence1 > settings.confidence_threshold, int(Route.TEACHER1), route_N)
    return torch.where(agree_N, int(Route.BLENDED), route_N).to(torch.int8)


def _confidence_share(evidence: Evidence) -> Tensor:
    """c_1 / (c_1 + c_2); 1/2 where both are 0; 1 with one teacher."""
    if evidence.single_teacher:
        return torch.ones_like(evidence.confidence1)
    total_N = evidence.confidence1 + evidence.confidence2
    return (evidence.confidence1 / total_N).where(total_N > 0, 0.5)


def _gold_share(evidence: Evidence) -> Tensor:
    """p_1(y) / (p_1(y) + p_2(y)) = sigmoid(ln p_1(y) - ln p_2(y)); 1/2 where both are 0; 1 with one teacher."""
    if evidence.single_teacher:
        return torch.ones_like(evidence.surprisal1)
    impossible_N = evidence.surprisal1.isinf() & evidence.surprisal2.isinf()
    return torch.sigmoid((evidence.surprisal2 - evidence.surprisal1).where(~impossible_N, 0.0))


def _improbable(evidence: Evidence, settings: RoutingSettings) -> Tensor:
    """max(p_1(y), p_2(y)) < tau, bool [N]."""
    return torch.maximum(evidence.gold_probability1, evidence.gold_probability2) < settings.surprise_tau


def _above_entropy(evidence: Evidence, settings: RoutingSettings) -> Tensor:
    """-ln p_i(y) > H(p_i) + margin for both teachers, bool [N]."""
    first_N = evidence.surprisal1 > evidence.entropy1 + settings.surprise_margin
    return first_N & (evidence.surprisal2 > evidence.entropy2 + settings.surprise_margin)


SURPRISES: dict[str, Callable[[Evidence, RoutingSettings], Tensor]] = {
    "probability": _improbable,
    "entropy": _above_entropy,
}
"""The words of ``training_params.surprise``: whether both teachers are surprised by the gold label."""


def _routing(route_N: Tensor, share_N: Tensor, gold_gain: float, js_N: Tensor) -> Routing:
    weight1_N = share_N.where(is_on(route_N, Route.BLENDED), is_on(route_N, Route.TEACHER1).to(share_N.dtype))
    gain_N = (~is_on(route_N, Route.SKIP)).to(share_N.dtype)
    return Routing(route_N, weight1_N, gain_N.masked_fill(is_on(route_N, Route.GOLD), gold_gain), js_N)


def _with_dreams(routing: Routing, dreamer_N: Tensor) -> Routing:
    awake_N = dreamer_N == 0
    dreamer_route_N = torch.where(dreamer_N == 2, int(Route.TEACHER2), int(Route.TEACHER1)).to(torch.int8)
    share_N = (dreamer_N == 1).to(routing.weight1_N.dtype)
    nothing_N = torch.zeros_like(routing.js_N)
    return routing.where(awake_N, Routing(dreamer_route_N, share_N, torch.ones_like(routing.gain_N), nothing_N))


def _demand(evidence: Evidence | None, routing: str) -> Evidence:
    if evidence is None:
        raise LadderError(
            f"routing {routing!r} reads what the teachers say, and no evidence was given",
            where="training_params.routing",
            remedy="call gather_evidence first, or use the routing gold",
        )
    return evidence


def _demand_rows(row_N: Tensor | None) -> Tensor:
    if row_N is None:
        raise LadderError(
            "statistics are averaged over rows, and the tokens' rows were not given",
            where="training_params.granularity",
            remedy="pass row_N, or use granularity token",
        )
    return row_N
