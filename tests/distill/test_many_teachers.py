"""More than two teachers: the fused loss against the dense float64 reference, and what two cannot show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from ladder.distill import (
    IGNORE,
    Evidence,
    FusedLoss,
    FusedResult,
    Objective,
    Route,
    RoutingSettings,
    StudentLogits,
    Tokens,
    gather_evidence,
    jensen_shannon,
    log_probabilities,
    route,
    token_losses,
)
from ladder.distill.divergence import log_target
from ladder.errors import LadderError
from ladder.teachers.source import LogitsSource

N, V = 60, 23
DOUBLE = torch.float64


def teachers(count: int) -> list[Tensor]:
    """Logits [N, V] that agree on a part of the tokens."""
    make = torch.Generator().manual_seed(count)
    common_NV = 2 * torch.randn(N, V, generator=make)
    apart_N1 = (torch.rand(N, 1, generator=make) < 0.6).float()
    return [common_NV + apart_N1 * torch.randn(N, V, generator=make) * (0.5 + number) for number in range(count)]


LABELS = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(5)).where(torch.arange(N) % 4 > 0, IGNORE)
DREAMER = torch.zeros(N, dtype=torch.int64).index_fill(0, torch.arange(6), 1).index_fill(0, torch.arange(6, 10), 2)
STUDENT = torch.randn(N, V, generator=torch.Generator().manual_seed(6))
WEIGHTS = torch.rand(N, generator=torch.Generator().manual_seed(7))


def fused(
    told: list[Tensor | None], table: RoutingSettings, objective: Objective
) -> tuple[Tensor, Tensor, FusedResult]:
    """Total, gradient of the student's logits, and the whole result."""
    loss = FusedLoss(objective, table, V)
    tokens = Tokens.of(LABELS, DREAMER.clamp_max(1), torch.arange(N) // 4, loss.columns)
    sources = [None if one is None else LogitsSource.dense(one) for one in told]
    student_NV = STUDENT.clone().requires_grad_()
    result = loss(StudentLogits(student_NV), sources, tokens, loss.route_ahead(tokens, sources), WEIGHTS)
    result.total.backward()
    assert student_NV.grad is not None
    return result.total.detach(), student_NV.grad, result


def prior(slots: Sequence[int], rows_n: Tensor, evidence: Evidence) -> tuple[Tensor, ...]:
    """Each teacher's worth: its number, and a little of the token."""
    return tuple(torch.full((len(rows_n),), slot + 1.0) + rows_n % 3 for slot in slots)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("fusion", ["confidence", "mean", "precision"])
@pytest.mark.parametrize("table", ["agreement", "surprise", "cascade"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_against_the_dense_reference(count: int, table: str, fusion: str, weighed: bool) -> None:
    settings = RoutingSettings(table, fusion=fusion, confidence_threshold=0.6)  # type: ignore[arg-type]
    told: list[Tensor | None] = [*teachers(count), *[None] * (2 - count)]
    doubles = [None if one is None else one.double() for one in told]
    evidence = gather_evidence(doubles, LABELS)
    if weighed:
        worth = prior(list(range(count)), torch.arange(N), evidence)
        evidence = replace(evidence, prior=worth)
    dreamer_N = DREAMER.clamp_max(count)
    for pooling, direction in product(("probabilities", "logits"), ("forward", "reverse", "jsd")):
        objective = Objective(gamma=0.3, pooling=pooling, direction=direction)  # type: ignore[arg-type]
        loss = FusedLoss(objective, settings, V)
        tokens = Tokens.of(LABELS, dreamer_N, torch.arange(N) // 4, loss.columns)
        sources = [None if one is None else LogitsSource.dense(one) for one in told]
        student_NV = STUDENT.clone().requires_grad_()
        ahead = loss.route_ahead(tokens, sources, prior if weighed else None)
        result = loss(StudentLogits(student_NV), sources, tokens, ahead, WEIGHTS, prior if weighed else None)
        result.total.backward()
        routing = route(evidence, LABELS, settings, dreamer_N)
        assert torch.equal(result.routing.route_N, routing.route_N)
        torch.testing.assert_close(result.routing.weights_KN[:count].double(), routing.weights_KN, rtol=0, atol=1e-5)
        dense_NV = STUDENT.double().requires_grad_()
        losses = token_losses(dense_NV, doubles, LABELS, routing, objective, dreamer_N > 0)
        total = (losses.loss * WEIGHTS).sum()
        total.backward()
        assert (result.total - total).abs() / total < 1e-5
        assert student_NV.grad is not None and dense_NV.grad is not None
        assert (student_NV.grad - dense_NV.grad).norm() / dense_NV.grad.norm() < 1e-5
        taught_N = routing.route_N >= int(Route.TEACHER1)
        assert (routing.weights_KN.sum(0) - taught_N.double()).abs().max() < 1e-6


def test_pools_and_divergence_of_three_are_those_of_the_formulas() -> None:
    logs = [log_probabilities(one.double()) for one in teachers(3)]
    weights_KN = torch.tensor([[0.5], [0.0], [0.5]], dtype=DOUBLE).repeat(1, N)
    weights_KN[:, ::2] = torch.tensor([[0.2], [0.3], [0.5]], dtype=DOUBLE)
    mixture = sum(w.unsqueeze(-1) * log.exp() for w, log in zip(weights_KN, logs, strict=True))
    pooled = torch.log_softmax(sum(w.unsqueeze(-1) * log for w, log in zip(weights_KN, logs, strict=True)), -1)
    told = [one.double() for one in teachers(3)]
    torch.testing.assert_close(log_target(told, weights_KN, 1.0, "probabilities").exp(), mixture)
    torch.testing.assert_close(log_target(told, weights_KN, 1.0, "logits"), pooled)
    mean = sum(log.exp() for log in logs) / 3
    js = sum((log.exp() * (log - mean.log())).sum(-1) for log in logs) / 3
    torch.testing.assert_close(jensen_shannon(*logs), js)
    sure = torch.eye(3, dtype=DOUBLE).log()
    assert jensen_shannon(*sure.unsqueeze(1)).item() == pytest.approx(math.log(3))


def test_equal_teachers_are_one_teacher() -> None:
    """However many they are: the blend of equals is each of them."""
    one, table = teachers(1)[0], RoutingSettings("agreement", js_threshold=1.0)
    alone, gradient, _ = fused([one, None], table, Objective())
    for count in (2, 3, 4):
        total, same, result = fused([one] * count, table, Objective())
        assert result.told.surprisal_KN.shape == (count, N)
        assert (result.routing.agreement_N[DREAMER == 0] > 1 - 1e-6).all()
        assert (total - alone).abs() < 1e-5 and (same - gradient).norm() / gradient.norm() < 1e-5


def test_the_cascade_asks_the_next_where_one_is_not_sure() -> None:
    """The first that is confident, else the label, else nobody; nothing is blended."""
    sure, unsure = torch.tensor([9.0, 0.0, 0.0]), torch.zeros(3)
    rows = ([1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0])
    told = [torch.stack([sure if here else unsure for here in row]) for row in rows]
    labels = torch.tensor([0, 0, 0, 1, IGNORE])
    routing = route(gather_evidence(told, labels), labels, RoutingSettings("cascade"))
    assert [Route(kind).name for kind in routing.route_N.tolist()] == ["TEACHER1", "TEACHER2", "OTHER", "GOLD", "SKIP"]
    assert routing.weights_KN.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert routing.gain_N.tolist() == [1, 1, 1, 0.5, 0]


class Passing(LogitsSource):
    """A teacher that has nothing to say about some tokens."""

    may_pass = True


def test_who_passes_has_no_share_and_where_all_pass_the_label_teaches() -> None:
    first, second, third = teachers(3)
    places = torch.arange(10, N, 2).numpy()
    loss = FusedLoss(Objective(), RoutingSettings("surprise", surprise_tau=0.0, fusion="mean"), V)
    tokens = Tokens.of(LABELS, torch.zeros_like(DREAMER), torch.arange(N), loss.columns)
    some = Passing(third[places], places, N)
    sources = [LogitsSource.dense(first), LogitsSource.dense(second), some]
    result = loss(StudentLogits(STUDENT), sources, tokens, loss.route_ahead(tokens, sources), WEIGHTS)
    labelled_N, heard_N = LABELS != IGNORE, some.heard_N
    weights_KN = result.routing.weights_KN
    assert torch.allclose(weights_KN[:, labelled_N & heard_N], torch.tensor(1 / 3))
    assert torch.equal(weights_KN[2, ~heard_N], torch.zeros(int((~heard_N).sum())))
    assert torch.equal(result.told.confidence_KN[2].isnan(), ~(heard_N & (tokens.kept_N)))
    alone = [None, None, some]
    result = loss(StudentLogits(STUDENT), alone, tokens, loss.route_ahead(tokens, alone), WEIGHTS)
    assert (result.routing.route_N[labelled_N & ~heard_N] == Route.GOLD).all()
    assert (result.routing.route_N[~labelled_N & ~heard_N] == Route.SKIP).all()
    assert (result.routing.route_N[labelled_N & heard_N] == Route.BLENDED).all()
    must = LogitsSource(third[places], places, N)
    with pytest.raises(LadderError, match="teacher 3 did not hear"):
        loss.route_ahead(tokens, [*sources[:2], must])
