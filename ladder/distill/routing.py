"""Who teaches a token: several teachers blended, one of them, the gold label, or nobody.

Routing reads statistics of the teachers only; it never sees the student, so every implementation of the loss can be
given the same routes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor

from ladder.distill.device import onto
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
    "route_cascade",
    "route_surprise",
]


class Route(IntEnum):
    """Where the target of a token comes from."""

    SKIP = 0
    GOLD = 1
    TEACHER1 = 2
    TEACHER2 = 3
    BLENDED = 4
    OTHER = 5
    """One of the teachers from the third on, alone."""

    @classmethod
    def alone(cls, slot: int) -> Route:
        """Where the teacher in this slot (its number less 1) teaches alone."""
        return (cls.TEACHER1, cls.TEACHER2)[slot] if slot < 2 else cls.OTHER


@dataclass(frozen=True)
class RoutingSettings:
    """The part of ``training_params`` that decides routes; the manifest explains each field.

    Raises:
        LadderError: ``sequence`` granularity with surprise routing, where the mean hides the one surprising token.
    """

    routing: Literal["agreement", "surprise", "cascade", "gold"]
    js_threshold: float = 0.1
    confidence_threshold: float = 0.8
    agreement_confidence: float | None = None
    gold_weight: float = 0.5
    surprise: Literal["probability", "entropy"] = "probability"
    surprise_tau: float = 0.5
    surprise_margin: float = 1.0
    granularity: Literal["token", "sequence"] = "token"
    confidence: Literal["top1", "entropy"] = "top1"
    fusion: Literal["confidence", "mean", "precision"] = "confidence"

    def __post_init__(self) -> None:
        if self.granularity == "sequence" and self.routing == "surprise":
            raise LadderError(
                "surprise routing was asked for by sequence, expected by token",
                where="training_params.granularity",
                remedy="use granularity token, or routing agreement",
            )


@dataclass(frozen=True, eq=False)
class Routing:
    """One decision a token. Tensors are [N], but for the weights."""

    route_N: Tensor
    """:class:`Route`, int8."""
    weights_KN: Tensor
    """Share of each teacher in the target, [K, N], 0 to 1: they sum to 1 where teachers teach, and are 0 elsewhere."""
    gain_N: Tensor
    """g, the weight of the divergence: the gold weight on GOLD, 0 on SKIP, 1 elsewhere."""
    agreement_N: Tensor
    """1 - JS / ln S of the S teachers that were heard, 0 to 1 (of the row's mean with granularity ``sequence``); 1 on
    dreams."""

    @property
    def trained_N(self) -> Tensor:
        """Everything but SKIP, bool [N]."""
        return ~self.on(Route.SKIP)

    def on(self, route: Route) -> Tensor:
        """Which tokens take this route, bool [N]."""
        return is_on(self.route_N, route)

    def at(self, rows_n: Tensor | slice) -> Routing:
        """The decisions for some of the tokens."""
        return Routing(self.route_N[rows_n], self.weights_KN[:, rows_n], self.gain_N[rows_n], self.agreement_N[rows_n])

    def of(self, slots: Sequence[int]) -> Routing:
        """The same decisions with the weights of these teachers alone."""
        return replace(self, weights_KN=self.weights_KN[list(slots)])

    def among(self, teachers: int, slots: Sequence[int]) -> Routing:
        """The same decisions with weights for K teachers, those that there are standing in these slots."""
        weights_KN = self.weights_KN.new_zeros(teachers, len(self.route_N))
        for place, slot in enumerate(slots):
            weights_KN[slot] = self.weights_KN[place]
        return replace(self, weights_KN=weights_KN)

    def where(self, rows_N: Tensor, other: Routing) -> Routing:
        """These decisions where ``rows_N`` holds, the other ones elsewhere, in the dtype of the others."""
        return Routing(
            self.route_N.where(rows_N, other.route_N),
            self.weights_KN.to(other.weights_KN.dtype).where(rows_N, other.weights_KN),
            self.gain_N.to(other.gain_N.dtype).where(rows_N, other.gain_N),
            self.agreement_N.to(other.agreement_N.dtype).where(rows_N, other.agreement_N),
        )

    def replaced(self, rows_n: Tensor, part: Routing) -> Routing:
        """These decisions with those of some tokens replaced."""
        return Routing(
            self.route_N.index_copy(0, rows_n, part.route_N),
            self.weights_KN.index_copy(1, rows_n, part.weights_KN.to(self.weights_KN.dtype)),
            self.gain_N.index_copy(0, rows_n, part.gain_N.to(self.gain_N.dtype)),
            self.agreement_N.index_copy(0, rows_n, part.agreement_N.to(self.agreement_N.dtype)),
        )


def is_on(route_N: Tensor, route: Route) -> Tensor:
    """Which routes are this one, bool [N]. Compares with a plain number: within ``torch.compile``, a tensor compared
    with an enum is the constant False."""
    return route_N == int(route)


def skipped(like_N: Tensor, teachers: int) -> Routing:
    """Nobody teaches these tokens."""
    nothing_N = torch.zeros(like_N.shape, device=like_N.device)
    return Routing(nothing_N.to(torch.int8), nothing_N.expand(teachers, -1), nothing_N, nothing_N)


@dataclass(frozen=True, eq=False)
class _Line:
    """What a table says of each token, [N] each."""

    route_N: Tensor
    """int8."""
    alone_N: Tensor
    """Place of the teacher that teaches alone, int64; NOBODY where none does."""
    shares: Sequence[Tensor]
    """Of each teacher where they are blended."""
    gold_gain: float


NOBODY = -1
Router = Callable[[Evidence, Tensor, RoutingSettings, Tensor], _Line]
"""Evidence of S teachers, labels [N], settings, and the route of each teacher alone, int8 [S]."""


def route_agreement(evidence: Evidence, labels_N: Tensor, settings: RoutingSettings, alone_S: Tensor) -> _Line:
    """The table, first that applies: teachers agree, the first of them is confident, there is a gold label, skip. Who
    is worth next to nothing (:func:`_confident`) counts as not confident."""
    agree_N = evidence.js < settings.js_threshold
    if settings.agreement_confidence is not None:
        agree_N &= _largest(evidence.confidence) >= settings.agreement_confidence
    confident_N = _confident(evidence, 0, settings)
    alone_N = torch.zeros_like(labels_N).masked_fill(~confident_N | agree_N, NOBODY)
    route_N = _alone_or_label(alone_N, labels_N, alone_S)
    return _Line(
        route_N.masked_fill(agree_N, int(Route.BLENDED)), alone_N, _shares(evidence, settings), settings.gold_weight
    )


def route_cascade(evidence: Evidence, labels_N: Tensor, settings: RoutingSettings, alone_S: Tensor) -> _Line:
    """The first teacher that is confident teaches alone; where none is, the label; else skip. Nothing is blended. Who
    is worth next to nothing (:func:`_confident`) is passed over."""
    alone_N = torch.full_like(labels_N, NOBODY)
    for place in reversed(range(len(evidence))):
        alone_N = alone_N.masked_fill(_confident(evidence, place, settings), place)
    return _Line(
        _alone_or_label(alone_N, labels_N, alone_S), alone_N, _shares(evidence, settings), settings.gold_weight
    )


def route_surprise(evidence: Evidence, labels_N: Tensor, settings: RoutingSettings, alone_S: Tensor) -> _Line:
    """Labelled tokens: gold with g = 1 where all teachers are surprised by the label, else a blend, in which with
    ``fusion: confidence`` a teacher weighs as much as the probability it gave the label. Unlabelled tokens: as
    :func:`route_agreement`.

    Raises:
        LadderError: no surprise of that name.
    """
    gold_N, table = labels_N != IGNORE, route_agreement(evidence, labels_N, settings, alone_S)
    surprised_N = chosen(SURPRISES, settings.surprise, "training_params.surprise")(evidence, settings)
    labelled_N = torch.where(surprised_N, int(Route.GOLD), int(Route.BLENDED)).to(torch.int8)
    by_label = _gold_shares(evidence) if settings.fusion == "confidence" else table.shares
    shares = [share_N.where(gold_N, other_N) for share_N, other_N in zip(by_label, table.shares, strict=True)]
    return _Line(labelled_N.where(gold_N, table.route_N), table.alone_N.masked_fill(gold_N, NOBODY), shares, 1.0)


ROUTERS: dict[str, Router] = {
    "agreement": route_agreement,
    "surprise": route_surprise,
    "cascade": route_cascade,
}
"""The words of ``training_params.routing``."""


def route(
    evidence: Evidence | None,
    labels_N: Tensor,
    settings: RoutingSettings,
    dreamer_N: Tensor | None = None,
    row_N: Tensor | None = None,
    *,
    teachers: int = 2,
    alone_S: Tensor | None = None,
) -> Routing:
    """Route each token.

    Args:
        evidence: statistics of the teachers; not needed with ``gold``, where labels alone teach.
        labels_N: column of the gold token, or IGNORE; int [N].
        dreamer_N: 0 no dream, else the number of the teacher that dreamt it; int8 [N]. A dream goes to its dreamer with
            g = 1.
        row_N: row of each token, int64 [N]; needed with granularity ``sequence``.
        teachers: K of the weights, where there is no evidence to count them.
        alone_S: the route of each teacher that was heard where it teaches alone, int8 [S]; when left out, they are
            teachers 1, 2 and on.

    Raises:
        LadderError: evidence or rows are needed and absent, or the settings name no router.
    """
    if settings.routing == "gold":
        routing = _gold(labels_N, teachers)
    else:
        evidence = _demand(evidence, settings.routing)
        if settings.granularity == "sequence":
            evidence = average_over_rows(evidence, _demand_rows(row_N))
        if alone_S is None:
            alone_S = alone_routes(range(len(evidence)), labels_N.device)
        router = chosen(ROUTERS, settings.routing, "training_params.routing")
        routing = _routing(router(evidence, labels_N, settings, alone_S), evidence)
    return routing if dreamer_N is None else _with_dreams(routing, dreamer_N)


def alone_routes(slots: Iterable[int], device: torch.device) -> Tensor:
    """The route of each of these teachers where it teaches alone, int8 [S]."""
    return onto(torch.tensor([int(Route.alone(slot)) for slot in slots], dtype=torch.int8), device)


def _gold(labels_N: Tensor, teachers: int) -> Routing:
    """Plain training on labels: every labelled token gold with g = 1, the rest skipped."""
    route_N = torch.where(labels_N != IGNORE, int(Route.GOLD), int(Route.SKIP)).to(torch.int8)
    nothing_N = torch.zeros(labels_N.shape, device=labels_N.device)
    return Routing(route_N, nothing_N.expand(teachers, -1), (~is_on(route_N, Route.SKIP)).float(), nothing_N + 1)


def _routing(line: _Line, evidence: Evidence) -> Routing:
    route_N, blended_N, dtype = line.route_N, is_on(line.route_N, Route.BLENDED), line.shares[0].dtype
    weights = [share_N.where(blended_N, (line.alone_N == place).to(dtype)) for place, share_N in enumerate(line.shares)]
    gain_N = (~is_on(route_N, Route.SKIP)).to(dtype).masked_fill(is_on(route_N, Route.GOLD), line.gold_gain)
    return Routing(route_N, torch.stack(weights), gain_N, 1 - evidence.js / math.log(max(2, len(evidence))))


def _alone_or_label(alone_N: Tensor, labels_N: Tensor, alone_S: Tensor) -> Tensor:
    """A teacher that teaches alone, else the label, else nobody; int8 [N]."""
    label_N = torch.where(labels_N != IGNORE, int(Route.GOLD), int(Route.SKIP)).to(torch.int8)
    return alone_S[alone_N.clamp_min(0)].where(alone_N != NOBODY, label_N)


def _confident(evidence: Evidence, place: int, settings: RoutingSettings) -> Tensor:
    """Whether a teacher may teach alone, bool [N]: it is sure, and where there is a prior, its part of all priors is at
    least half of an equal part. Weights cannot keep off what a teacher says where it is the only one that is asked."""
    sure_N = evidence.confidence[place] > settings.confidence_threshold
    if evidence.prior is None:
        return sure_N
    total_N = functools.reduce(torch.add, evidence.prior)
    return sure_N & (evidence.prior[place] * (2 * len(evidence)) >= total_N)


def _largest(values: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.maximum, values)


def _shares(evidence: Evidence, settings: RoutingSettings) -> list[Tensor]:
    """What each teacher weighs in a blend: its part of all confidence (equal parts with ``mean`` and ``precision``),
    each multiplied by the prior; equal parts where all that is 0."""
    worth = list(evidence.confidence)
    if settings.fusion != "confidence":
        worth = [torch.ones_like(one_N) for one_N in worth]
    if evidence.prior is not None:
        worth = [one_N * prior_N for one_N, prior_N in zip(worth, evidence.prior, strict=True)]
    total_N = functools.reduce(torch.add, worth)
    return _with_the_rest([(one_N / total_N).where(total_N > 0, 1 / len(worth)) for one_N in worth[:-1]], total_N)


def _gold_shares(evidence: Evidence) -> list[Tensor]:
    """p_s(y) / sum of all p(y), each p(y) multiplied by the prior; equal parts where all are 0. One against the others
    in log space: with two teachers sigmoid(ln p_1(y) - ln p_2(y))."""
    logs = [-surprisal_N for surprisal_N in evidence.surprisal]
    if evidence.prior is not None:
        logs = [log_N + prior_N.log() for log_N, prior_N in zip(logs, evidence.prior, strict=True)]
    impossible_N = _largest(logs).isneginf()
    shares: list[Tensor] = []
    for place, log_N in enumerate(logs[:-1]):
        others = [other_N for number, other_N in enumerate(logs) if number != place]
        rest_N = others[0] if len(others) == 1 else torch.stack(others).logsumexp(0)
        equal = -math.log(len(others))
        shares.append(torch.sigmoid((log_N - rest_N).where(~impossible_N, equal)))
    return _with_the_rest(shares, logs[0])


def _with_the_rest(shares: list[Tensor], like_N: Tensor) -> list[Tensor]:
    """The shares of all but the last teacher, and what they leave of 1 for that one."""
    rest_N = torch.ones_like(like_N)
    for share_N in shares:
        rest_N = rest_N - share_N
    return [*shares, rest_N.clamp_min(0.0)]


def _improbable(evidence: Evidence, settings: RoutingSettings) -> Tensor:
    """max p(y) < tau, bool [N]."""
    return _largest(evidence.gold_probability) < settings.surprise_tau


def _above_entropy(evidence: Evidence, settings: RoutingSettings) -> Tensor:
    """-ln p(y) > H(p) + margin for every teacher, bool [N]."""
    pairs = zip(evidence.surprisal, evidence.entropy, strict=True)
    surprised = [surprisal_N > entropy_N + settings.surprise_margin for surprisal_N, entropy_N in pairs]
    return functools.reduce(torch.logical_and, surprised)


SURPRISES: dict[str, Callable[[Evidence, RoutingSettings], Tensor]] = {
    "probability": _improbable,
    "entropy": _above_entropy,
}
"""The words of ``training_params.surprise``: whether all teachers are surprised by the gold label."""


def _with_dreams(routing: Routing, dreamer_N: Tensor) -> Routing:
    awake_N, weights_KN = dreamer_N == 0, routing.weights_KN
    alone_K = alone_routes(range(len(weights_KN)), dreamer_N.device)
    dreamer_route_N = alone_K[(dreamer_N.long() - 1).clamp(0, len(weights_KN) - 1)]
    numbers_K1 = torch.arange(1, len(weights_KN) + 1, device=dreamer_N.device).unsqueeze(-1)
    dreamt_KN = (dreamer_N == numbers_K1).to(weights_KN.dtype)
    one_N = torch.ones_like(routing.gain_N)
    return routing.where(awake_N, Routing(dreamer_route_N, dreamt_KN, one_N, one_N))


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
