"""The barrier against a float64 reference by autograd, its directions and aggregates, heads and logits, and chunks."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from ladder.distill import Objective, RoutingSettings
from ladder.distill.barrier import Barrier, BarrierLoss
from ladder.distill.fused import Chunking
from ladder.distill.student import Block, StudentHead, StudentLogits
from ladder.distill.tokens import Tokens
from ladder.errors import LadderError
from tests.distill.test_fused import DenseSource

N, V, D = 23, 11, 5
GOLD = (Objective(alpha=0.0, beta=1.0, gamma=0.0, temperature=1.0), RoutingSettings(routing="gold"))


def loss_of(barrier: Barrier, taboo: tuple[int, ...] = ()) -> BarrierLoss:
    return BarrierLoss(*GOLD, V, taboo, chunking=Chunking(4, 3), barrier=barrier)


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student and reference logits [N, V + 2], labels [N] and weights [N]."""
    generator = torch.Generator().manual_seed(seed)
    draw: Any = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    labels_N = torch.randint(3, V, (N,), generator=generator)
    return 2 * draw(N, V + 2), 2 * draw(N, V + 2), labels_N, draw(N).abs() / N


def run(loss: BarrierLoss, student: Any, reference_NV: Tensor, labels_N: Tensor, weight_N: Tensor) -> Any:
    tokens = Tokens.of(labels_N, torch.zeros(N, dtype=torch.long), torch.arange(N), loss.columns)
    teachers = [None, DenseSource(reference_NV, torch.ones(N, dtype=torch.bool))]
    ahead = loss.route_ahead(tokens, teachers)
    return loss(student, teachers, tokens, ahead, weight_N)


def expected(barrier: Barrier, logits_NV: Tensor, other_NV: Tensor, labels_N: Tensor, weight_N: Tensor) -> Tensor:
    log_p_NV, log_q_NV = logits_NV[:, :V].log_softmax(-1), other_NV[:, :V].log_softmax(-1)
    first, second = (log_p_NV, log_q_NV) if barrier.direction == "reverse" else (log_q_NV, log_p_NV)
    distance_N = (first.exp() * (first - second)).sum(-1)
    whole = distance_N.mean() if barrier.aggregate == "mean" else ((distance_N**2).mean() + 1e-8).sqrt()
    nll_N = -log_p_NV.gather(-1, labels_N[:, None])[:, 0]
    return (weight_N * nll_N).sum() + weight_N.sum() * barrier.strength * (whole - barrier.slack).clamp_min(0)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@pytest.mark.parametrize("aggregate", ["rms", "mean"])
@pytest.mark.parametrize("tau", [0.1, 50.0])
def test_the_loss_and_its_gradient_against_autograd_in_float64(
    direction: Literal["reverse", "forward"], aggregate: Literal["rms", "mean"], tau: float
) -> None:
    barrier, (logits_NV, other_NV, labels_N, weight_N) = Barrier(0.7, tau, direction, aggregate), case()
    reference = logits_NV.clone().requires_grad_()
    exact = expected(barrier, reference, other_NV, labels_N, weight_N)
    exact.backward()
    own = logits_NV.clone().requires_grad_()
    found = run(loss_of(barrier), StudentLogits(own), other_NV, labels_N, weight_N)
    found.total.backward()
    assert torch.allclose(found.total, exact, atol=1e-12)
    assert torch.allclose(own.grad[:, :V], reference.grad[:, :V], atol=1e-12)
    paid = found.losses.regularizer
    assert (paid > 0).all() if tau < 1 else (paid == 0).all()
    assert torch.allclose(paid, barrier.strength * (found.losses.kd - tau).clamp_min(0), atol=1e-12)


def test_a_head_with_a_cap_and_a_scale() -> None:
    barrier, (_, other_NV, labels_N, weight_N) = Barrier(0.7, 0.1), case(1)
    generator = torch.Generator().manual_seed(2)
    hidden_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(V, D, generator=generator, dtype=torch.float64)
    pairs = []
    for fused in (False, True):
        hidden, weight = hidden_ND.clone().requires_grad_(), weight_VD.clone().requires_grad_()
        if fused:
            head = StudentHead((Block(hidden, weight),), None, 1.7, 3.0)
            total = run(loss_of(barrier), head, other_NV[:, :V], labels_N, weight_N).total
        else:
            total = expected(barrier, 3.0 * (1.7 * hidden @ weight.T / 3.0).tanh(), other_NV, labels_N, weight_N)
        total.backward()
        pairs.append((total.detach(), hidden.grad, weight.grad))
    for plain, chunked in zip(*pairs, strict=True):
        assert torch.allclose(plain, chunked, atol=1e-10)


def test_a_student_that_equals_its_reference_pays_nothing_and_has_a_gradient() -> None:
    logits_NV, _, labels_N, weight_N = case()
    own = logits_NV.clone().requires_grad_()
    found = run(loss_of(Barrier(1.0, 0.0)), StudentLogits(own), logits_NV, labels_N, weight_N)
    found.total.backward()
    assert torch.isfinite(own.grad).all() and found.losses.kd.max() == pytest.approx(1e-4)


def test_taboo_ids_take_no_part_and_a_reference_must_have_heard() -> None:
    logits_NV, other_NV, labels_N, weight_N = case()
    own = logits_NV.clone().requires_grad_()
    moved_NV = other_NV.clone()
    moved_NV[:, 1] += 5.0
    one, two = (
        run(loss_of(Barrier(), (1,)), StudentLogits(own), said_NV, labels_N, weight_N).total
        for said_NV in (other_NV, moved_NV)
    )
    assert torch.equal(one, two)
    with pytest.raises(LadderError, match="the reference, teacher 3, did not hear all"):
        run(loss_of(Barrier(reference=3)), StudentLogits(own), other_NV, labels_N, weight_N)
