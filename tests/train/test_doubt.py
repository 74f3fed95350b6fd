"""What truncated teachers leave open about their agreement is counted, and costs nothing where nothing is open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ladder.distill import IGNORE, Objective, Route, RoutingSettings, jensen_shannon
from ladder.distill.fused import FusedLoss
from ladder.distill.student import StudentLogits
from ladder.distill.tokens import Source, Tokens
from ladder.run.hooks import metrics_of
from ladder.teachers.source import LogitsSource, TopKSource
from ladder.teachers.wire import Kind, Truncation, capture
from ladder.train.loss import js_doubt
from ladder.train.trainer import Trainer

N, V = 600, 40
AGREEMENT = RoutingSettings("agreement", js_threshold=0.1, confidence_threshold=1.0)
SURPRISE = replace(AGREEMENT, routing="surprise")


def logits(number: int) -> torch.Tensor:
    """Two teachers whose divergences lie about the threshold."""
    generator = torch.Generator().manual_seed(0)
    first, other = (2 * torch.randn(N, V, generator=generator) for _ in range(2))
    return first if number == 1 else first + 0.5 * other


def truncated(number: int, k: int, places: np.ndarray | None = None) -> TopKSource:
    truncation = Truncation(k, 2.0, V)
    said = logits(number) if places is None else logits(number)[places]
    top = capture(said, torch.zeros(len(said), dtype=torch.long), truncation)
    return TopKSource(top, truncation, np.arange(N) if places is None else places, N)


def tokens(**changes: torch.Tensor) -> Tokens:
    told = {
        "labels_N": torch.full((N,), IGNORE),
        "dreamer_N": torch.zeros(N, dtype=torch.long),
        "row_N": torch.arange(N) // 3,
        "kept_N": torch.ones(N, dtype=torch.bool),
    }
    return Tokens(**told | changes)


def counts(settings: RoutingSettings, *teachers: Source, **changes: torch.Tensor) -> tuple[int, int]:
    found = js_doubt(tokens(**changes), (teachers[0], teachers[1]), settings)
    return int(found["js_routed"]), int(found["js_uncertain"])


def wrongly_routed(settings: RoutingSettings, k: int) -> int:
    """Tokens that two truncated teachers route otherwise than the whole ones."""
    said = tokens()
    loss = FusedLoss(Objective(), settings, V)
    pairs = [[LogitsSource.dense(logits(number)) for number in (1, 2)], [truncated(number, k) for number in (1, 2)]]
    routes = []
    for first, second in pairs:
        ahead = loss.route_ahead(said, (first, second))
        result = loss(StudentLogits(torch.zeros(N, V)), (first, second), said, ahead, torch.ones(N))
        routes.append(result.routing.route_N)
    assert {Route(kind) for kind in routes[0].unique().tolist()} == {Route.BLENDED, Route.SKIP}
    return int((routes[0] != routes[1]).sum())


@pytest.mark.parametrize("granularity", ["token", "sequence"])
def test_every_token_that_is_routed_wrongly_is_among_the_uncertain_ones(granularity: Any) -> None:
    settings, uncertain = replace(AGREEMENT, granularity=granularity), []
    for k in (3, 8, 20, V):
        routed, open_ = counts(settings, truncated(1, k), truncated(2, k))
        wrong = wrongly_routed(settings, k)
        assert routed == N and wrong <= open_ <= N and (wrong > 0 or k > 8)
        assert granularity == "token" or open_ % 3 == 0  # A row is in doubt as a whole.
        uncertain.append(open_)
    assert uncertain == sorted(uncertain, reverse=True) and uncertain[-1] == 0 and uncertain[1] > 0


def test_the_threshold_decides_what_is_uncertain() -> None:
    """Two whole distributions say what they say; what is hidden is 0.02 of the mass, so at most 0.014 nats."""
    p, q = torch.full((N, V), 1e-9), torch.full((N, V), 1e-9)
    p[:, 0], p[:, 1], p[:, 2:] = 0.7, 0.28, 0.02 / (V - 2)
    q[:, 0], q[:, 1], q[:, 2:] = 0.28, 0.7, 0.02 / (V - 2)
    truncation, labels = Truncation(2, 2.0, V), torch.zeros(N, dtype=torch.long)
    sources = [TopKSource(capture(each.log(), labels, truncation), truncation, np.arange(N), N) for each in (p, q)]
    exact = jensen_shannon(p[:1].double().log(), q[:1].double().log()).item()
    for threshold, expected in ((exact - 1e-3, 0), (exact + 1e-3, N), (exact + 0.0135, N), (exact + 0.0145, 0)):
        assert counts(replace(AGREEMENT, js_threshold=threshold), *sources) == (N, expected), threshold


def test_only_tokens_that_are_routed_by_the_divergence_are_counted() -> None:
    pair = truncated(1, 3), truncated(2, 3)
    labels = torch.full((N,), IGNORE).index_fill(0, torch.arange(100), 5)
    dreams = torch.zeros(N, dtype=torch.long).index_fill(0, torch.arange(100, 150), 1)
    kept = torch.ones(N, dtype=torch.bool).index_fill(0, torch.arange(150, 170), False)
    said = {"labels_N": labels, "dreamer_N": dreams, "kept_N": kept}
    assert counts(AGREEMENT, *pair, **said)[0] == N - 70
    assert counts(SURPRISE, *pair, **said)[0] == N - 170
    alone = torch.arange(170, N)
    part = [truncated(number, 3, alone.numpy()) for number in (1, 2)]
    assert counts(SURPRISE, *pair, **said) == counts(SURPRISE, *part)
    assert counts(SURPRISE, *pair, labels_N=torch.full((N,), 5)) == (0, 0)


def test_a_token_that_one_teacher_did_not_hear_has_no_divergence() -> None:
    assert counts(AGREEMENT, truncated(1, 3), truncated(2, 3, np.arange(10, 30)))[0] == 20


def test_exact_teachers_and_gold_are_never_in_doubt() -> None:
    dense, top = LogitsSource.dense(logits(2)), truncated(1, 3)
    for pair in ((top, dense), (dense, top), (dense, dense), (top, None), (None, top), (None, None)):
        assert js_doubt(tokens(), pair, AGREEMENT) == {}
    assert js_doubt(tokens(), (top, top), replace(AGREEMENT, routing="gold")) == {}


@pytest.mark.parametrize("wire", ["hidden", "logits", "topk"])
def test_a_step_reports_it(school: Any, wire: Kind) -> None:
    manifest = school.make_manifest(routing="agreement", accumulation=2, runtime={"wire": wire, "top_k": 4})
    trainer = Trainer(school.spec(manifest))
    (report,) = school.run(trainer, school.make_batches(manifest), [0])
    metrics = metrics_of(report)
    if wire == "topk":
        assert 0 < report.js_uncertain <= 1 and metrics["route/js_uncertain"] == report.js_uncertain
    else:
        assert report.js_uncertain is None and "route/js_uncertain" not in metrics
