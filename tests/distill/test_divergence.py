"""Divergences against plain sums in probability space; gradients where probability space gives NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ladder.distill import generalized_jsd, jensen_shannon, kl
from ladder.distill.divergence import DIRECTIONS, log_probabilities

INF = math.inf
LN2 = math.log(2)
EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(z) for z in logits)
    return [math.exp(z) / total for z in logits]


def plain_kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


def plain_jsd(p: list[float], q: list[float], w: float) -> float:
    m = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
    return w * plain_kl(p, m) + (1 - w) * plain_kl(q, m)


def log_p(logits: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return log_probabilities(torch.tensor([logits], dtype=dtype))


def numeric_gradient(function: Callable[[list[float]], float], point: list[float]) -> list[float]:
    step = 1e-5

    def moved(i: int, by: float) -> float:
        return function([z + by * (i == j) for j, z in enumerate(point)])

    return [(moved(i, step) - moved(i, -step)) / (2 * step) for i in range(len(point))]


pairs = st.integers(2, 7).flatmap(
    lambda size: st.tuples(*(st.lists(st.floats(-8, 8), min_size=size, max_size=size) for _ in range(2)))
)


@EXAMPLES
@given(pairs, st.floats(0.01, 0.99))
def test_values_and_gradients_against_plain_sums(pair: tuple[list[float], list[float]], w: float) -> None:
    a, b = pair
    p = softmax(a)
    plain: dict[str, Callable[[list[float]], float]] = {
        "forward": lambda z: plain_kl(p, softmax(z)),
        "reverse": lambda z: plain_kl(softmax(z), p),
        "jsd": lambda z: plain_jsd(p, softmax(z), w),
    }
    for name, function in DIRECTIONS.items():
        student = torch.tensor([b], dtype=torch.float64, requires_grad=True)
        value = function(log_p(a), log_probabilities(student), w)
        assert value.item() == pytest.approx(plain[name](b), abs=1e-11)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert gradient[0].tolist() == pytest.approx(numeric_gradient(plain[name], b), abs=1e-8), name


@EXAMPLES
@given(pairs)
def test_jensen_shannon(pair: tuple[list[float], list[float]]) -> None:
    a, b = pair
    js = jensen_shannon(log_p(a), log_p(b))
    assert js.item() == pytest.approx(plain_jsd(softmax(a), softmax(b), 0.5), abs=1e-12)
    assert js.item() == pytest.approx(jensen_shannon(log_p(b), log_p(a)).item(), abs=1e-15)
    assert 0 <= js.item() <= LN2


def test_golden_values() -> None:
    p, q = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([[0.9, 0.1]]).double().log()
    assert kl(p, q).item() == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert kl(q, p).item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert jensen_shannon(p, q).item() == pytest.approx(0.10174922, abs=1e-8)
    assert generalized_jsd(p, q, 0.3).item() == pytest.approx(plain_jsd([0.5, 0.5], [0.9, 0.1], 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_in_common_is_ln_2(dtype: torch.dtype) -> None:
    masked = jensen_shannon(log_p([3.0, 1.0, -INF, -INF], dtype), log_p([-INF, -INF, 0.0, 2.0], dtype))
    underflowed = jensen_shannon(log_p([2000.0, 0.0], dtype), log_p([0.0, 2000.0], dtype))
    both = torch.cat([masked, underflowed])
    assert both.tolist() == pytest.approx([LN2, LN2], abs=1e-6)
    assert (both <= LN2).all()


def test_rounding_is_clamped_into_the_range() -> None:
    torch.manual_seed(0)
    a = torch.randn(200, 50) * 6
    near = log_probabilities(a), log_probabilities(a + 1e-6 * torch.randn_like(a))
    assert (generalized_jsd(*near, 0.5) < 0).any(), "the case does not exercise the clamp"
    assert (jensen_shannon(*near) >= 0).all()
    over = torch.tensor([[0.01, -INF]])
    assert generalized_jsd(over, over.flip(-1), 0.5).item() > LN2, "the case does not exercise the clamp"
    assert jensen_shannon(over, over.flip(-1)).double().item() == pytest.approx(LN2, abs=1e-7)


@pytest.mark.parametrize("name", ["forward", "reverse", "jsd"])
def test_columns_that_both_lack_contribute_nothing(name: str) -> None:
    a, b = [0.3, -1.0, 2.0], [1.0, 0.5, -0.7]
    target = log_p([a[0], -INF, a[1], a[2]])
    masked = torch.tensor([[b[0], -INF, b[1], b[2]]], dtype=torch.float64, requires_grad=True)
    plain = torch.tensor([b], dtype=torch.float64, requires_grad=True)
    value = DIRECTIONS[name](target, log_probabilities(masked), 0.3)
    expected = DIRECTIONS[name](log_p(a), log_probabilities(plain), 0.3)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), masked)
    (reference,) = torch.autograd.grad(expected.sum(), plain)
    assert gradient[0, 1] == 0
    assert gradient[0, [0, 2, 3]].tolist() == pytest.approx(reference[0].tolist(), abs=1e-12)


@pytest.mark.parametrize("name", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("gap", [80.0, 120.0, 800.0, 1e4])
def test_gradients_are_finite_when_probabilities_underflow(name: str, gap: float) -> None:
    target = log_p([0.0, gap, 0.0, 1.0], torch.float32)
    student = torch.tensor([[gap, 0.0, 0.0, 0.0]], requires_grad=True)
    value = DIRECTIONS[name](target, log_probabilities(student), 0.5)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all() and value.item() > 0.6
    assert gradient.isfinite().all()


def test_jsd_is_finite_in_value_and_gradient_where_only_one_side_is_zero() -> None:
    target = log_p([0.0, -INF, 1.0], torch.float32)
    student = torch.tensor([[0.5, 0.0, -INF]], requires_grad=True)
    value = generalized_jsd(target, log_probabilities(student), 0.4)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    p, q = [1 / (1 + math.e), 0.0, math.e / (1 + math.e)], [*softmax([0.5, 0.0]), 0.0]
    assert value.item() == pytest.approx(plain_jsd(p, q, 0.4), abs=1e-6)
    assert gradient.isfinite().all() and gradient[0, 0] != 0 and gradient[0, 2] == 0


def test_kl_is_infinite_where_the_second_lacks_what_the_first_has() -> None:
    assert kl(log_p([0.0, 0.0]), log_p([0.0, -INF])).item() == INF
    assert kl(log_p([0.0, -INF]), log_p([0.0, 0.0])).item() == pytest.approx(LN2)


def test_a_probability_that_underflows_to_zero_against_a_true_zero_is_not_nan() -> None:
    student = log_p([0.0, -1e4], torch.float32)
    assert kl(student, log_p([0.0, -INF], torch.float32)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_identical_logits_over_a_large_vocabulary(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(2, 248_320) * 3).to(dtype)
    flat = torch.zeros(1, 248_320, dtype=dtype)
    for z in (logits, flat):
        log_z = log_probabilities(z)
        assert log_z.dtype == torch.float32
        assert kl(log_z, log_z).abs().max() == 0
        assert generalized_jsd(log_z, log_z, 0.3).abs().max() < 1e-6
        assert jensen_shannon(log_z, log_z).max() < 1e-6


@pytest.mark.parametrize("length", [16, 128, 512])
def test_a_token_reads_the_same_at_every_length(length: int) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1, 64), torch.randn(1, 64)
    alone = jensen_shannon(log_probabilities(a), log_probabilities(b))
    many = jensen_shannon(log_probabilities(a.expand(length, -1)), log_probabilities(b.expand(length, -1)))
    assert many.tolist() == pytest.approx([alone.item()] * length, abs=1e-7)


def test_half_precision_is_upcast_and_double_is_kept() -> None:
    assert log_probabilities(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64
    assert log_probabilities(torch.tensor([[2.0, 0.0]]), 2.0).tolist()[0] == pytest.approx(
        torch.log_softmax(torch.tensor([1.0, 0.0]), -1).tolist()
    )
