"""Each source is averaged by itself; splitting a batch changes nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ladder.distill import Objective, Route, RoutingSettings, gather_evidence, reduction_weights, route, source_counts
from ladder.distill.objective import token_losses
from ladder.distill.vocabulary import IGNORE

EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True)
Batch = list[tuple[Route, int, float]]
tokens = st.lists(st.tuples(st.sampled_from(list(Route)), st.integers(0, 2), st.floats(0, 9)), min_size=1, max_size=12)
shares = st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.5, 2.0]), min_size=3, max_size=3)


def plain(batch: Batch, share: list[float]) -> float:
    """Sum over the sources that are there of share times mean over what is trained."""
    means = {}
    for source in range(3):
        trained = [loss for kind, s, loss in batch if s == source and kind != Route.SKIP]
        if trained:
            means[source] = sum(trained) / len(trained)
    total = sum(share[s] for s in means)
    return sum(share[s] / total * mean for s, mean in means.items()) if total else 0.0


@EXAMPLES
@given(tokens, shares, st.integers(0, 12))
def test_against_means_and_over_split_batches(batch: Batch, share: list[float], cut: int) -> None:
    routes = torch.tensor([kind for kind, _, _ in batch], dtype=torch.int8)
    sources = torch.tensor([source for _, source, _ in batch], dtype=torch.int32)
    losses = torch.tensor([loss for _, _, loss in batch], dtype=torch.float64)
    weights = torch.tensor(share, dtype=torch.float64)
    parts = [slice(0, cut), slice(cut, None)]
    counts = sum(source_counts(routes[p] != Route.SKIP, sources[p], 3) for p in parts)
    assert isinstance(counts, Tensor)
    found = sum(
        (reduction_weights(routes[p] != Route.SKIP, sources[p], counts, weights) * losses[p]).sum().item()
        for p in parts
    )
    assert found == pytest.approx(plain(batch, share), abs=1e-12)


def test_counts() -> None:
    counts = source_counts(torch.tensor([True, False, True, True]), torch.tensor([2, 2, 0, 2]), 4)
    assert counts.tolist() == [1, 0, 2, 0] and counts.dtype == torch.int64
    with pytest.raises(IndexError):
        source_counts(torch.tensor([True]), torch.tensor([4]), 4)


def test_long_dreams_do_not_drown_a_short_completion() -> None:
    routes = torch.tensor([Route.GOLD] * 3 + [Route.TEACHER1] * 48)
    sources = torch.tensor([0] * 3 + [2] * 48)
    counts = source_counts(routes != Route.SKIP, sources, 3)
    weights = reduction_weights(routes != Route.SKIP, sources, counts, torch.tensor([0.5, 0.1, 0.4]))
    assert weights.dtype == torch.float32
    assert weights[:3].sum().item() == pytest.approx(0.5 / 0.9)
    assert weights[3:].sum().item() == pytest.approx(0.4 / 0.9)


def test_nothing_trained_weighs_nothing() -> None:
    routes = torch.zeros(2, dtype=torch.int8)
    weights = reduction_weights(
        routes != Route.SKIP, torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0.5, 0.5])
    )
    assert weights.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("cuts", [[0, 24], [0, 5, 24], [0, 1, 2, 17, 24]])
def test_micro_batches_in_any_order_give_the_gradient_of_the_whole(cuts: list[int]) -> None:
    """Through a weight matrix, in float32: split over accumulation steps or ranks, and rows next to others."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(24, 8, generator=generator)
    z1, z2 = (torch.randn(24, 11, generator=generator) for _ in range(2))
    z1, z2 = 1.5 * z1, 1.5 * z1 + 0.8 * z2
    labels = torch.where(torch.arange(24) % 3 == 0, IGNORE, torch.arange(24) % 11)
    sources, share = torch.arange(24) % 4 // 2, torch.tensor([0.7, 0.3])
    s = RoutingSettings("agreement", js_threshold=0.04, confidence_threshold=0.44)
    head = torch.randn(8, 11, generator=generator)

    def gradient(order: Tensor, edges: list[int]) -> tuple[Tensor, set[int]]:
        parts = [order[a:b] for a, b in itertools.pairwise(edges)]
        routings = [route(gather_evidence((z1[i], z2[i]), labels[i]), labels[i], s) for i in parts]
        counts = sum(source_counts(r.trained_N, sources[i], 2) for r, i in zip(routings, parts, strict=True))
        assert isinstance(counts, Tensor)
        weight = head.clone().requires_grad_()
        for i, routing in zip(parts, routings, strict=True):
            losses = token_losses(hidden[i] @ weight, (z1[i], z2[i]), labels[i], routing, Objective(gamma=0.1)).loss
            (reduction_weights(routing.trained_N, sources[i], counts, share) * losses).sum().backward()
        assert weight.grad is not None
        return weight.grad, {number for r in routings for number in r.route_N.tolist()}

    whole, kinds = gradient(torch.arange(24), [0, 24])
    assert kinds == {0, 1, 2, 4}
    split, _ = gradient(torch.randperm(24, generator=generator), cuts)
    assert ((split - whole).norm() / whole.norm()).item() < 1e-6
