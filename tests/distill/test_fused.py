"""The fused loss against the dense reference in float64: shapes, dtypes, routes, masks, padding, biases and caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ladder.distill import (
    IGNORE,
    Objective,
    Route,
    Routing,
    RoutingSettings,
    columns,
    gather_evidence,
    route,
    token_losses,
)
from ladder.distill.chunks import Chunking
from ladder.distill.fused import FusedLoss, FusedResult
from ladder.distill.student import Block, StudentHead
from ladder.distill.tokens import Tokens

SEED, SURPRISE = RoutingSettings("seed"), RoutingSettings("surprise")


@dataclass
class DenseSource:
    """A teacher whose logits [N, V] are all there."""

    logits_NV: Tensor
    speaks_N: Tensor

    @property
    def head_size(self) -> int:
        return self.logits_NV.shape[1]

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        assert self.speaks_N[rows_n].all(), "asked for a token that it did not hear"
        return out_nV.copy_(self.logits_NV[rows_n, : out_nV.shape[1]])

    def known(self, rows_n: Tensor) -> None:
        return None


@dataclass
class Case:
    """A student with a head, two teachers with logits, and tokens of every kind."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    low_rank: tuple[Tensor, Tensor] | None
    teachers: tuple[Tensor, Tensor]
    tokens: Tokens
    weight_N: Tensor
    scale: float
    cap: float | None
    real: int
    taboo: tuple[int, ...]

    @classmethod
    def of(
        cls,
        n: int = 13,
        width: int = 6,
        real: int = 17,
        padding: int = 3,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        bias: bool = False,
        rank: int = 0,
        taboo: tuple[int, ...] = (),
        scale: float = 1.0,
        cap: float | None = None,
        frozen: bool = False,
    ) -> Case:
        make = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=make).to(dtype)

        size = real + padding
        labels_N = torch.randint(0, real, (n,), generator=make)
        labels_N = labels_N.where(torch.rand(n, generator=make) < 0.7, IGNORE)
        row_N = torch.arange(n) // 3
        dreamer_N = (torch.randint(0, 3, (n,), generator=make) * (torch.rand(n, generator=make) < 0.4))[row_N]
        keep = columns(real, real, taboo)
        first_NV = 3 * normal(n, size)
        return cls(
            normal(n, width).requires_grad_(),
            normal(size, width).requires_grad_(not frozen),
            normal(size).requires_grad_() if bias else None,
            (normal(n, rank).requires_grad_(), normal(size, rank).requires_grad_()) if rank else None,
            (first_NV, first_NV + normal(n, 1) * normal(n, size)),
            Tokens.of(labels_N, dreamer_N, row_N, keep),
            torch.rand(n, generator=make),
            scale,
            cap,
            real,
            taboo,
        )

    @property
    def leaves(self) -> list[Tensor]:
        every = [self.hidden_ND, self.weight_VD, self.bias_V, *(self.low_rank or ())]
        return [leaf for leaf in every if leaf is not None and leaf.requires_grad]

    def student(self) -> StudentHead:
        blocks = [Block(self.hidden_ND, self.weight_VD)]
        if self.low_rank:
            blocks.append(Block(*self.low_rank))
        return StudentHead(tuple(blocks), self.bias_V, self.scale, self.cap)

    def sources(self) -> tuple[DenseSource, DenseSource]:
        """Each teacher heard everything but the other's dreams, where it holds rubbish."""
        made = []
        for number, logits_NV in enumerate(self.teachers, 1):
            speaks_N = (self.tokens.dreamer_N == 0) | (self.tokens.dreamer_N == number)
            made.append(DenseSource(logits_NV.where(speaks_N.unsqueeze(-1), float("nan")), speaks_N))
        return made[0], made[1]

    def fused(self, objective: Objective, table: RoutingSettings, **options: Any) -> FusedLoss:
        return FusedLoss(objective, table, self.real, self.taboo, **options)

    def run(self, objective: Objective, table: RoutingSettings, **options: Any) -> FusedResult:
        fused = self.fused(objective, table, **options)
        ahead = fused.route_ahead(self.tokens, self.sources())
        return fused(self.student(), self.sources(), self.tokens, ahead, self.weight_N)

    def dense(self, objective: Objective, routing: Routing) -> tuple[Tensor, list[Tensor], Any]:
        """Total, gradients and token losses by the float64 reference, given the same routes."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        doubles = iter(leaves)

        def double(leaf: Tensor | None) -> Tensor:
            assert leaf is not None
            return next(doubles) if leaf.requires_grad else leaf.double()

        raw_NV = double(self.hidden_ND) @ double(self.weight_VD).t()
        if self.bias_V is not None:
            raw_NV = raw_NV + double(self.bias_V)
        if self.low_rank:
            raw_NV = raw_NV + double(self.low_rank[0]) @ double(self.low_rank[1]).t()
        logits_NV = raw_NV * self.scale
        logits_NV = logits_NV if self.cap is None else self.cap * torch.tanh(logits_NV / self.cap)
        keep = columns(logits_NV.shape[1], self.real, self.taboo)
        labels_N = keep.relabel(self.tokens.labels_N)
        first_NV, second_NV = (keep.select(logits.double()) for logits in self.teachers)
        losses = token_losses(
            keep.select(logits_NV), first_NV, second_NV, labels_N, routing, objective, self.tokens.dreamer_N > 0
        )
        total = (self.weight_N.double() * self.tokens.kept_N * losses.loss).sum()
        return total, list(torch.autograd.grad(total, leaves)), losses

    def routes(self, table: RoutingSettings) -> Routing:
        """Routes by the dense reference in float64."""
        keep = columns(self.teachers[0].shape[1], self.real, self.taboo)
        labels_N, kept_N = keep.relabel(self.tokens.labels_N), self.tokens.kept_N
        first_NV, second_NV = (keep.select(logits.double()) for logits in self.teachers)
        evidence = gather_evidence(first_NV, second_NV, labels_N, table.confidence)
        return route(evidence, labels_N, table, self.tokens.dreamer_N, self.tokens.row_N.where(kept_N, -1))


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Norm-wise: |a - b| / |b|, or |a| where b is nothing."""
    norm = theirs.double().norm()
    return ((ours.double() - theirs.double()).norm() / (norm if norm > 1e-9 else 1.0)).item()


def check(case: Case, objective: Objective, table: RoutingSettings, tolerance: float, **options: Any) -> FusedResult:
    result = case.run(objective, table, **options)
    total, gradients, losses = case.dense(objective, result.routing)
    assert distance(result.total.detach(), total.detach()) < tolerance
    for ours, theirs in zip(torch.autograd.grad(result.total, case.leaves), gradients, strict=True):
        assert distance(ours, theirs) < tolerance
    kept_N = case.tokens.kept_N
    for name in ("loss", "ce", "kd", "regularizer") if objective.gamma else ("loss", "ce", "kd"):
        assert distance(getattr(result.losses, name), getattr(losses, name).detach() * kept_N) < tolerance, name
    return result


OBJECTIVES = st.builds(
    Objective,
    alpha=st.sampled_from([0.0, 0.1, 1.0]),
    beta=st.sampled_from([0.0, 0.9]),
    gamma=st.sampled_from([0.0, 0.3]),
    temperature=st.sampled_from([0.7, 1.0, 2.0, 3.5]),
    pooling=st.sampled_from(["probabilities", "logits"]),
    direction=st.sampled_from(["forward", "reverse", "jsd"]),
    jsd_weight=st.sampled_from([0.2, 0.5]),
    ce_on=st.sampled_from(["gold", "fallback"]),
).filter(lambda objective: objective.alpha + objective.beta + objective.gamma > 0)
TABLES = st.one_of(
    st.builds(
        RoutingSettings,
        routing=st.sampled_from(["seed", "surprise", "gold"]),
        js_threshold=st.sampled_from([0.02, 0.1, 0.4]),
        confidence_threshold=st.sampled_from([0.3, 0.8]),
        surprise=st.sampled_from(["probability", "entropy"]),
        confidence=st.sampled_from(["top1", "entropy"]),
    ),
    st.builds(RoutingSettings, routing=st.just("seed"), granularity=st.just("sequence")),
)
SHAPES = st.fixed_dictionaries(
    {
        "n": st.integers(1, 40),
        "width": st.integers(1, 9),
        "real": st.integers(5, 40),
        "padding": st.integers(0, 4),
        "seed": st.integers(0, 10_000),
        "bias": st.booleans(),
        "rank": st.sampled_from([0, 2]),
        "taboo": st.sampled_from([(), (1,), (0, 4)]),
        "scale": st.sampled_from([1.0, 0.25]),
        "cap": st.sampled_from([None, 5.0]),
        "frozen": st.booleans(),
    }
)
CHUNKS = st.builds(Chunking, st.integers(1, 50), st.integers(1, 50))


@settings(max_examples=300, deadline=None)
@given(SHAPES, OBJECTIVES, TABLES, CHUNKS)
def test_loss_and_gradients_equal_the_dense_reference(
    shape: dict, objective: Objective, table: RoutingSettings, chunks: Chunking
) -> None:
    check(Case.of(**shape), objective, table, 1e-5, chunking=chunks)


@settings(max_examples=60, deadline=None)
@given(SHAPES, OBJECTIVES, TABLES)
def test_half_precision_stays_near_the_reference(shape: dict, objective: Objective, table: RoutingSettings) -> None:
    check(Case.of(**shape, dtype=torch.bfloat16), objective, table, 2e-2)


@settings(max_examples=60, deadline=None)
@given(SHAPES, OBJECTIVES, TABLES)
def test_double_precision_is_exact(shape: dict, objective: Objective, table: RoutingSettings) -> None:
    check(Case.of(**shape, dtype=torch.float64), objective, table, 1e-9)


@settings(max_examples=100, deadline=None)
@given(SHAPES, TABLES)
def test_routes_equal_the_dense_reference(shape: dict, table: RoutingSettings) -> None:
    case = Case.of(**shape, dtype=torch.float64)
    ours, theirs = case.run(Objective(), table).routing, case.routes(table)
    kept_N = case.tokens.kept_N
    assert ours.route_N[kept_N].tolist() == theirs.route_N[kept_N].tolist()
    assert (ours.route_N[~kept_N] == Route.SKIP).all()
    trained_N = kept_N & theirs.trained_N
    torch.testing.assert_close(
        ours.weight1_N[trained_N].double(), theirs.weight1_N[trained_N].double(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(ours.gain_N[kept_N].double(), theirs.gain_N[kept_N].double())
