"""Confidence and entropy against plain sums, and at the ends of their ranges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.distill import entropy, normalized_entropy_confidence, top1
from ladder.errors import LadderError

INF = math.inf
EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


def log_probs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


@EXAMPLES
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=9))
def test_against_plain_sums(logits: list[float]) -> None:
    total = sum(math.exp(z) for z in logits)
    p = [math.exp(z) / total for z in logits]
    plain = -sum(x * math.log(x) for x in p)
    log_p = torch.log_softmax(torch.tensor([logits], dtype=torch.float64), -1)
    assert entropy(log_p).item() == pytest.approx(plain, abs=1e-12)
    assert top1(log_p).item() == pytest.approx(max(p), abs=1e-12)
    expected = 1 - plain / math.log(len(p))
    assert normalized_entropy_confidence(log_p).item() == pytest.approx(expected, abs=1e-12)


def test_one_number_a_token() -> None:
    log_p = log_probs([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5])
    assert entropy(log_p).tolist() == pytest.approx([math.log(2), 0.0, 1.5 * math.log(2)])
    assert top1(log_p).tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert normalized_entropy_confidence(log_p)[1].item() == 1.0


@pytest.mark.parametrize("size", [2, 3, 7, 1000, 248_320])
def test_uniform_has_no_confidence_and_never_less_than_none(size: int) -> None:
    log_p = torch.log_softmax(torch.zeros(1, size), -1)
    assert entropy(log_p).item() == pytest.approx(math.log(size), rel=1e-5)
    assert 0.0 <= normalized_entropy_confidence(log_p).item() < 1e-5


def test_rounding_below_zero_is_clamped() -> None:
    off_by_rounding = log_probs([0.4999999, 0.4999999])
    assert entropy(off_by_rounding).item() > math.log(2)
    assert normalized_entropy_confidence(off_by_rounding).item() == 0.0


def test_gradient_of_entropy_is_finite_where_a_probability_is_zero() -> None:
    logits = torch.tensor([[1.0, -INF, 0.0, -1e4]], requires_grad=True)
    entropy(torch.log_softmax(logits, -1)).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0 and logits.grad[0, 0] != 0


def test_one_column_is_refused() -> None:
    with pytest.raises(LadderError, match="at least 2"):
        normalized_entropy_confidence(torch.zeros(3, 1))
