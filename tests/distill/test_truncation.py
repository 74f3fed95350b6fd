"""The true Jensen-Shannon divergence lies within the bounds that truncated distributions give."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.distill.divergence import jensen_shannon, js_bounds, js_deviation

V = 12


def pair(seed: int, scale: float, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two log-distributions [4, V]; the smaller the shift, the more they agree."""
    generator = torch.Generator().manual_seed(seed)
    first, other = (scale * torch.randn(4, V, generator=generator, dtype=torch.float64) for _ in range(2))
    return first.log_softmax(-1), (first + shift * other).log_softmax(-1)


def bounds(log_p: torch.Tensor, log_q: torch.Tensor, k: int, other: int) -> tuple[torch.Tensor, torch.Tensor]:
    tops = [log.topk(size) for log, size in ((log_p, k), (log_q, other))]
    return js_bounds(tops[0].indices, tops[0].values, tops[1].indices, tops[1].values)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.0, 20.0), st.floats(0.0, 3.0), st.integers(1, V), st.integers(1, V))
def test_the_truth_lies_within_the_bounds(seed: int, scale: float, shift: float, k: int, other: int) -> None:
    log_p, log_q = pair(seed, scale, shift)
    exact = jensen_shannon(log_p, log_q)
    lower, upper = bounds(log_p, log_q, k, other)
    assert (lower <= exact + 1e-12).all() and (exact <= upper + 1e-12).all()
    assert (lower >= 0).all() and (upper <= math.log(2)).all()
    tail = torch.stack([1 - log.topk(size).values.exp().sum(-1) for log, size in ((log_p, k), (log_q, other))])
    if torch.equal(log_p.topk(k).indices.sort().values, log_q.topk(other).indices.sort().values):
        assert (upper - lower <= math.log(2) * tail.mean(0) + 1e-12).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.1, 10.0), st.floats(0.0, 3.0))
def test_more_tokens_never_widen_the_bounds_and_all_close_them(seed: int, scale: float, shift: float) -> None:
    log_p, log_q = pair(seed, scale, shift)
    lower, upper = bounds(log_p, log_q, V, V)
    assert (upper - lower).abs().max() < 1e-12
    assert (lower - jensen_shannon(log_p, log_q)).abs().max() < 1e-12
    gaps = [(found[1] - found[0]) for found in (bounds(log_p, log_q, k, k) for k in range(1, V + 1))]
    assert all((wide >= narrow - 1e-12).all() for wide, narrow in itertools.pairwise(gaps))


def test_the_bounds_are_reached() -> None:
    """Known: half the mass, on a common token. Unknown: whether the other halves meet."""
    half = torch.tensor([[0.5, 0.5, 0.0]]).log()
    apart = torch.tensor([[0.5, 0.0, 0.5]]).log()
    ids, log_p = torch.tensor([[0]]), torch.tensor([[0.5]]).log()
    lower, upper = js_bounds(ids, log_p, ids, log_p)
    assert jensen_shannon(half, half).item() == lower.item() == 0
    assert jensen_shannon(half, apart).item() == pytest.approx(upper.item(), abs=1e-7)
    assert upper.item() == pytest.approx(math.log(2) / 2)


def test_teachers_without_a_common_token_say_only_how_much_they_hide() -> None:
    log_p = torch.tensor([[0.75]]).log()
    lower, upper = js_bounds(torch.tensor([[3]]), log_p, torch.tensor([[5]]), log_p)
    assert lower.item() == 0 and upper.item() == pytest.approx(math.log(2))


def test_the_order_of_ids_does_not_matter() -> None:
    log_p, log_q = pair(3, 2.0, 1.0)
    first, other = log_p.topk(5), log_q.topk(7)
    turned = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    expected = js_bounds(first.indices, first.values, other.indices, other.values)
    found = js_bounds(first.indices[:, turned].int(), first.values[:, turned], other.indices.int(), other.values)
    assert all((one - two).abs().max() < 1e-12 for one, two in zip(expected, found, strict=True))
    swapped = js_bounds(other.indices, other.values, first.indices, first.values)
    assert all((one - two).abs().max() < 1e-12 for one, two in zip(expected, swapped, strict=True))


def test_the_deviation_is_the_distance_to_the_farther_bound() -> None:
    lower, upper = torch.tensor([0.1, 0.1, 0.3]), torch.tensor([0.4, 0.4, 0.3])
    found = js_deviation(torch.tensor([0.1, 0.3, 0.3]), lower, upper)
    assert found.tolist() == pytest.approx([0.3, 0.2, 0.0])
