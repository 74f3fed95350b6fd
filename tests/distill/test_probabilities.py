"""The two pools: a mixture of probabilities and a blend of logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ladder.distill.divergence import POOLS, log_linear_pool, log_mixture, log_probabilities, log_target
from ladder.errors import LadderError

INF = math.inf
EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    total = sum(math.exp(z / temperature) for z in logits)
    return [math.exp(z / temperature) / total for z in logits]


def row(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


pairs = st.integers(2, 6).flatmap(
    lambda size: st.tuples(*(st.lists(st.floats(-9, 9), min_size=size, max_size=size) for _ in range(2)))
)


@EXAMPLES
@given(pairs, st.floats(0, 1), st.floats(0.5, 4))
def test_targets_against_plain_arithmetic(pair: tuple[list[float], list[float]], w: float, t: float) -> None:
    a, b = pair
    p, q = softmax(a, t), softmax(b, t)
    mixture = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
    logits = softmax([w * x + (1 - w) * y for x, y in zip(a, b, strict=True)], t)
    weight = torch.tensor([[w], [1 - w]], dtype=torch.float64)
    found = {pool: log_target((row(a), row(b)), weight, t, pool).exp()[0].tolist() for pool in POOLS}
    assert found["probabilities"] == pytest.approx(mixture, abs=1e-12)
    assert found["logits"] == pytest.approx(logits, abs=1e-12)


def test_the_two_pools_are_different_targets() -> None:
    a, b, w = row([3.0, 0.0, 0.0]), row([0.0, 3.0, 0.0]), torch.tensor([[0.5], [0.5]])
    mixture, pool = (log_target((a, b), w, 1.0, name).exp() for name in ("probabilities", "logits"))
    assert (mixture - pool).abs().max() > 0.05
    assert mixture.sum().item() == pytest.approx(1) and pool.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("w", [0.5, 0.3, 0.7, 1e-6])
def test_equal_distributions_give_themselves_back(w: float) -> None:
    log_p = log_probabilities(torch.zeros(1, 248_320))
    assert (log_mixture(log_p, log_p, torch.tensor(w)) - log_p).abs().max() < 2e-7


@pytest.mark.parametrize("w", [0.5, 0.3, 0.7, 1e-6, 0.0, 1.0])
@pytest.mark.parametrize("width", [2, 50_000])
def test_a_blend_of_equal_logits_is_their_own_distribution_to_the_last_bit(w: float, width: int) -> None:
    log_p = log_probabilities(4 * torch.randn(3, width, generator=torch.Generator().manual_seed(0)), 2.0)
    assert torch.equal(log_linear_pool(log_p, log_p.clone(), torch.full((3, 1), w)), log_p)


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_who_has_all_the_weight_of_a_blend_is_given_back_to_the_last_bit(w: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_p, log_q = (log_probabilities(4 * torch.randn(2, 5_000, generator=generator)) for _ in range(2))
    assert torch.equal(log_linear_pool(log_p, log_q, torch.full((2, 1), w)), log_p if w else log_q)


@pytest.mark.parametrize("w", [0.0, 0.25, 1.0])
def test_zeros(w: float) -> None:
    p, q = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.25, 0.75, 0.0]])
    weight = torch.tensor([[w]])
    mixture = log_mixture(p.log(), q.log(), weight).exp()
    assert mixture[0].tolist() == pytest.approx((w * p + (1 - w) * q)[0].tolist(), abs=1e-7)
    pool = log_linear_pool(p.log(), q.log(), weight).exp()
    expected = {0.0: q[0].tolist(), 0.25: [0.0, 1.0, 0.0, 0.0], 1.0: p[0].tolist()}[w]
    assert pool[0].tolist() == pytest.approx(expected, abs=1e-7)


def test_far_below_the_other_nothing_underflows() -> None:
    log_p, log_q = row([0.0, -500.0]), row([0.0, -2000.0])
    assert log_mixture(log_p, log_q, torch.tensor([[0.5]]).double())[0, 1].item() == pytest.approx(-500 - math.log(2))
    assert log_mixture(log_q, log_p, torch.tensor([[1.0]]).double())[0, 1].item() == pytest.approx(-2000)


@pytest.mark.parametrize("pool", list(POOLS))
def test_a_teacher_without_a_share_is_not_looked_at(pool: str) -> None:
    ran = torch.tensor([[1.0, -INF, 0.5], [0.2, 0.1, -3.0]])
    rubbish = torch.tensor([[math.nan, INF, 0.0], [-INF, -INF, -INF]])
    expected = log_probabilities(ran, 2.0)
    for found in (
        log_target((ran, rubbish), torch.tensor([[1.0], [0.0]]).expand(2, 2), 2.0, pool),
        log_target((rubbish, ran), torch.tensor([[0.0], [1.0]]).expand(2, 2), 2.0, pool),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_no_gradient_reaches_a_teacher() -> None:
    teacher = torch.zeros(1, 2, requires_grad=True)
    assert not log_target((teacher, teacher), torch.tensor([[1.0], [0.0]]), 1.0, "logits").requires_grad


def test_an_unknown_pool_is_named() -> None:
    with pytest.raises(LadderError, match="'mean' is not known, expected one of probabilities, logits"):
        log_target((torch.zeros(1, 2), torch.zeros(1, 2)), torch.tensor([[1.0], [0.0]]), 1.0, "mean")
