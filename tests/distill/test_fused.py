"""The fused loss against the dense reference in float64: shapes, dtypes, routes, masks, padding, biases and caps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.utils import counters

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
from ladder.distill.fused import Chunking, FusedLoss, FusedResult, workspace
from ladder.distill.kernels import has_compiler, kernels_of
from ladder.distill.student import Block, StudentHead, StudentLogits
from ladder.distill.temperature import Spread, VarianceTemperature
from ladder.distill.tokens import Tokens
from ladder.errors import LadderError

AGREEMENT, SURPRISE = RoutingSettings("agreement"), RoutingSettings("surprise")


@dataclass
class DenseSource:
    """A teacher whose logits [N, V] are all there."""

    logits_NV: Tensor
    speaks_N: Tensor
    may_pass: bool = False
    origin_N: Tensor | None = None

    @property
    def heard_N(self) -> Tensor:
        return self.speaks_N

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
        dreams: float = 0.4,
    ) -> Case:
        make = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=make).to(dtype)

        size = real + padding
        labels_N = torch.randint(0, real, (n,), generator=make)
        labels_N = labels_N.where(torch.rand(n, generator=make) < 0.7, IGNORE)
        row_N = torch.arange(n) // 3
        dreamer_N = (torch.randint(0, 3, (n,), generator=make) * (torch.rand(n, generator=make) < dreams))[row_N]
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
            keep.select(logits_NV), (first_NV, second_NV), labels_N, routing, objective, self.tokens.dreamer_N > 0
        )
        total = (self.weight_N.double() * self.tokens.kept_N * losses.loss).sum()
        return total, list(torch.autograd.grad(total, leaves)), losses

    def routes(self, table: RoutingSettings) -> Routing:
        """Routes by the dense reference in float64."""
        keep = columns(self.teachers[0].shape[1], self.real, self.taboo)
        labels_N, kept_N = keep.relabel(self.tokens.labels_N), self.tokens.kept_N
        first_NV, second_NV = (keep.select(logits.double()) for logits in self.teachers)
        evidence = gather_evidence((first_NV, second_NV), labels_N, table.confidence)
        return route(evidence, labels_N, table, self.tokens.dreamer_N, self.tokens.row_N.where(kept_N, -1))


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Norm-wise: |a - b| / |b|, where b counts as a hundredth at least: a divergence is a difference of numbers near 1,
    so that of two nearly equal distributions has no more digits in float32."""
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-2)).item()


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
        routing=st.sampled_from(["agreement", "surprise", "gold"]),
        js_threshold=st.sampled_from([0.02, 0.1, 0.4]),
        confidence_threshold=st.sampled_from([0.3, 0.8]),
        surprise=st.sampled_from(["probability", "entropy"]),
        confidence=st.sampled_from(["top1", "entropy"]),
    ),
    st.builds(RoutingSettings, routing=st.just("agreement"), granularity=st.just("sequence")),
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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(SHAPES, OBJECTIVES, TABLES, CHUNKS)
def test_loss_and_gradients_equal_the_dense_reference(
    shape: dict, objective: Objective, table: RoutingSettings, chunks: Chunking
) -> None:
    check(Case.of(**shape), objective, table, 1e-5, chunking=chunks)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, OBJECTIVES, TABLES)
def test_half_precision_stays_near_the_reference(shape: dict, objective: Objective, table: RoutingSettings) -> None:
    check(Case.of(**shape, dtype=torch.bfloat16), objective, table, 2e-2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, OBJECTIVES, TABLES)
def test_double_precision_is_exact(shape: dict, objective: Objective, table: RoutingSettings) -> None:
    check(Case.of(**shape, dtype=torch.float64), objective, table, 1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SHAPES, TABLES)
def test_routes_equal_the_dense_reference(shape: dict, table: RoutingSettings) -> None:
    case = Case.of(**shape, dtype=torch.float64)
    ours, theirs = case.run(Objective(), table).routing, case.routes(table)
    kept_N = case.tokens.kept_N
    assert ours.route_N[kept_N].tolist() == theirs.route_N[kept_N].tolist()
    assert (ours.route_N[~kept_N] == Route.SKIP).all()
    trained_N = kept_N & theirs.trained_N
    torch.testing.assert_close(
        ours.weights_KN[0][trained_N].double(), theirs.weights_KN[0][trained_N].double(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(ours.gain_N[kept_N].double(), theirs.gain_N[kept_N].double())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SHAPES, OBJECTIVES, TABLES, CHUNKS, CHUNKS)
def test_chunk_size_changes_nothing(
    shape: dict, objective: Objective, table: RoutingSettings, one: Chunking, other: Chunking
) -> None:
    case = Case.of(**shape)
    first, second = (case.run(objective, table, chunking=chunks) for chunks in (one, other))
    assert first.routing.route_N.tolist() == second.routing.route_N.tolist()
    assert distance(first.total.detach(), second.total.detach()) < 1e-6
    gradients = [torch.autograd.grad(result.total, case.leaves) for result in (first, second)]
    assert all(distance(a, b) < 2e-6 for a, b in zip(*gradients, strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("objective", "table"),
    [
        (Objective(gamma=0.3), AGREEMENT),
        (Objective(temperature=1.5, direction="jsd"), SURPRISE),
        (Objective(), AGREEMENT),
        (Objective(), SURPRISE),
        (Objective(gamma=0.3), SURPRISE),
        (Objective(temperature=1.5, direction="jsd"), AGREEMENT),
    ],
)
def test_compiled_equals_eager(objective: Objective, table: RoutingSettings) -> None:
    """A head with a cap and one without are two programs each."""
    compile_and_check(objective, table, {"n": 37, "real": 200, "taboo": (3,)}, {"n": 90, "real": 333, "cap": 4.0})


EVERYTHING = Objective(gamma=0.3, temperature=1.5, direction="jsd")


def test_every_term_compiled_equals_eager() -> None:
    """One program of each function, which takes a quarter of a minute; dreams, which have their own, are long."""
    compile_and_check(EVERYTHING, SURPRISE, {"n": 37, "real": 200, "taboo": (3,), "cap": 4.0, "dreams": 0.0})


def test_the_compiler_reads_every_program_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without dreams and a cap, up to where code is generated."""
    read = partial(torch.compile, backend="eager", dynamic=True)
    monkeypatch.setattr("ladder.distill.kernels.compiled", read)
    compile_and_check(EVERYTHING, SURPRISE, {"n": 37, "real": 200, "taboo": (3,)}, {"n": 90, "real": 333, "cap": 4.0})


def compile_and_check(objective: Objective, table: RoutingSettings, *shapes: dict[str, Any]) -> None:
    """The same function through the compiler: C++ here, Triton on a GPU. The reference is the dense one."""
    if not has_compiler("cpu"):
        pytest.skip("no C++ compiler")
    counters.clear()
    kernels_of.cache_clear()
    for seed, shape in enumerate(shapes, 1):
        case = Case.of(seed=seed, **shape)
        compiled = check(case, objective, table, 1e-5, compile=True, chunking=Chunking(16, 8))
        eager = case.run(objective, table)
        assert compiled.routing.route_N.tolist() == eager.routing.route_N.tolist()
        assert distance(compiled.losses.loss, eager.losses.loss) < 1e-6
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]


def same_everywhere(n: int = 12, real: int = 30) -> tuple[Tensor, Tensor, Tokens]:
    """A student whose head is its teachers', and unlabelled tokens."""
    make = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD = (torch.randn(rows, 5, generator=make) for rows in (n, real))
    nothing_N = torch.full((n,), IGNORE)
    tokens = Tokens.of(nothing_N, torch.zeros(n, dtype=torch.int64), torch.arange(n), columns(real, real))
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), tokens


def dense_source(logits_NV: Tensor) -> DenseSource:
    return DenseSource(logits_NV.detach(), torch.ones(len(logits_NV), dtype=torch.bool))


@pytest.mark.parametrize(
    "objective", [Objective(gamma=0.5), Objective(pooling="logits"), Objective(direction="reverse")]
)
def test_a_student_that_equals_both_teachers_costs_nothing(objective: Objective) -> None:
    hidden_ND, weight_VD, tokens = same_everywhere()
    logits_NV = hidden_ND @ weight_VD.t()
    fused = FusedLoss(objective, AGREEMENT, 30)
    teachers = (dense_source(logits_NV), dense_source(logits_NV))
    ahead = fused.route_ahead(tokens, teachers)
    assert (ahead.routing.route_N == Route.BLENDED).all() and (ahead.routing.agreement_N > 1 - 1e-6).all()
    result = fused(StudentHead((Block(hidden_ND, weight_VD),)), teachers, tokens, ahead, torch.full((12,), 1 / 12))
    assert abs(result.total.item()) < 1e-6
    for gradient in torch.autograd.grad(result.total, [hidden_ND, weight_VD]):
        assert gradient.norm() < 1e-6


def test_swapping_teachers_of_equal_confidence_changes_nothing() -> None:
    hidden_ND, weight_VD, tokens = same_everywhere()
    first_NV = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    second_NV = first_NV[:, torch.randperm(30, generator=torch.Generator().manual_seed(2))]
    fused = FusedLoss(Objective(gamma=0.0), replace(AGREEMENT, js_threshold=1.0), 30)
    totals = []
    for pair in ((first_NV, second_NV), (second_NV, first_NV)):
        teachers = (dense_source(pair[0]), dense_source(pair[1]))
        ahead = fused.route_ahead(tokens, teachers)
        student = StudentHead((Block(hidden_ND, weight_VD),))
        totals.append(fused(student, teachers, tokens, ahead, torch.ones(12)).total.item())
    assert totals[0] == pytest.approx(totals[1], rel=1e-6) and totals[0] > 1


def test_equal_teachers_are_blended_and_their_target_is_the_first() -> None:
    case = Case.of(n=20, seed=5)
    case.teachers = (case.teachers[0], case.teachers[0])
    awake_N = (case.tokens.dreamer_N == 0) & case.tokens.kept_N
    result = case.run(Objective(alpha=0.0), replace(AGREEMENT, js_threshold=1e-4))
    assert (result.routing.route_N[awake_N] == Route.BLENDED).all()
    single = case.fused(Objective(alpha=0.0), AGREEMENT)
    only = (dense_source(case.teachers[0]), None)
    tokens = replace(case.tokens, dreamer_N=case.tokens.dreamer_N.clamp(max=1))
    alone = single(case.student(), only, tokens, single.route_ahead(tokens, only), case.weight_N)
    torch.testing.assert_close(alone.losses.kd[awake_N], result.losses.kd[awake_N], rtol=1e-5, atol=1e-6)


def test_of_logits_as_of_a_head() -> None:
    case = Case.of(n=25, seed=3, padding=2, taboo=(2,))
    from_head = case.run(Objective(), SURPRISE)
    logits_NV = (case.hidden_ND @ case.weight_VD.t()).detach().requires_grad_()
    fused = case.fused(Objective(), SURPRISE)
    ahead = fused.route_ahead(case.tokens, case.sources())
    from_logits = fused(StudentLogits(logits_NV), case.sources(), case.tokens, ahead, case.weight_N)
    from_logits.total.backward()
    assert from_logits.total.item() == pytest.approx(from_head.total.item(), rel=1e-6)
    expected = torch.autograd.grad(from_head.total, [case.hidden_ND])[0]
    assert logits_NV.grad is not None and not logits_NV.grad[:, 17:].any() and not logits_NV.grad[:, 2].any()
    assert distance(logits_NV.grad @ case.weight_VD.detach(), expected) < 1e-6


class Counted(StudentHead):
    """A head that remembers which tokens were asked for, and which gradients were made."""

    asked: list[int]

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        COUNTED.extend(rows_n.tolist())
        return super().logits(rows_n, out_nV)


COUNTED: list[int] = []


def test_skipped_tokens_cost_no_product_of_the_students_head() -> None:
    case = Case.of(n=40, seed=4, taboo=(1, 2, 3))
    # Teachers that neither agree nor are sure: what has no label is skipped.
    table = replace(AGREEMENT, js_threshold=0.0, confidence_threshold=1.0)
    fused = case.fused(Objective(), table)
    ahead = fused.route_ahead(case.tokens, case.sources())
    COUNTED.clear()
    fused(Counted((Block(case.hidden_ND, case.weight_VD),)), case.sources(), case.tokens, ahead, case.weight_N)
    skipped_N = ~ahead.trained_N
    assert skipped_N.sum() > 5 and sorted(COUNTED) == ahead.trained_N.nonzero().squeeze(-1).tolist()


def test_a_frozen_head_gets_no_gradient_and_costs_no_product_for_it() -> None:
    case = Case.of(frozen=True)
    gradients = case.student().gradients([True, False])
    assert gradients.sums[0] is not None and gradients.sums[1] is None
    case.run(Objective(), AGREEMENT).total.backward()
    assert case.weight_VD.grad is None and case.hidden_ND.grad is not None and case.hidden_ND.grad.any()


def test_memory_does_not_grow_with_the_tokens() -> None:
    """Besides what goes in and out, nothing is wider than a few chunks."""
    sizes = []
    for n in (64, 512):
        case = Case.of(n=n, width=4, real=500, padding=0)
        fused, sources = case.fused(Objective(), SURPRISE, chunking=Chunking(32, 8)), case.sources()
        workspace.cache_clear()
        with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            ahead = fused.route_ahead(case.tokens, sources)
            fused(case.student(), sources, case.tokens, ahead, case.weight_N)
        changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        sizes.append(max(accumulate(changes)))
    assert sizes[1] - sizes[0] < 448 * 250 and sizes[1] < 512 * 500 * 4


def test_a_gradient_that_is_scaled_and_asked_for_twice() -> None:
    case = Case.of(seed=6)
    plain = torch.autograd.grad(case.run(Objective(), SURPRISE).total, case.leaves)
    scaled = torch.autograd.grad(-3 * case.run(Objective(), SURPRISE).total, case.leaves)
    assert all(distance(-3 * one, other) < 1e-6 for one, other in zip(plain, scaled, strict=True))


def test_a_teacher_that_did_not_hear_a_token_that_needs_it_is_an_error() -> None:
    case = Case.of(n=20, seed=1)
    silent = DenseSource(case.teachers[1], torch.zeros(20, dtype=torch.bool))
    fused = case.fused(Objective(), SURPRISE)
    ahead = fused.route_ahead(case.tokens, case.sources())
    with pytest.raises(LadderError, match="teacher 2 did not hear"):
        fused(case.student(), (case.sources()[0], silent), case.tokens, ahead, case.weight_N)
    some = DenseSource(case.teachers[0], torch.arange(20) % 2 == 0)
    with pytest.raises(LadderError, match="teacher 1 did not hear"):
        fused.route_ahead(case.tokens, (some, case.sources()[1]))
    with pytest.raises(LadderError, match="no teacher heard"):
        fused.route_ahead(case.tokens, (None, None))


def test_a_head_smaller_than_the_tokenizer_is_an_error() -> None:
    case = Case.of(real=17, padding=0)
    fused = FusedLoss(Objective(), SURPRISE, 18)
    with pytest.raises(LadderError, match="17 columns"):
        fused.route_ahead(case.tokens, case.sources())
    with pytest.raises(LadderError, match="17 columns"):
        ahead = case.fused(Objective(), SURPRISE).route_ahead(case.tokens, case.sources())
        fused(case.student(), (None, None), case.tokens, ahead, case.weight_N)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_a_temperature_for_each_token_is_that_of_the_reference(direction: Any, pooling: Any) -> None:
    """Loss and gradient in float64, in tiles, with removed columns and a cap."""
    case = Case.of(n=21, real=60, dtype=torch.float64, taboo=(3, 9), cap=8.0, bias=True)
    own = VarianceTemperature(slope=0.3, low=1.02, high=1.6)
    objective = Objective(gamma=0.2, temperature=1.0, direction=direction, pooling=pooling, variance=own)
    result = case.run(objective, AGREEMENT, chunking=Chunking(8, 3))
    result.total.backward()
    total, gradients, losses = case.dense(objective, result.routing)
    assert result.total.item() == pytest.approx(total.item(), abs=1e-10)
    for found, expected in zip((leaf.grad for leaf in case.leaves), gradients, strict=True):
        assert found is not None and torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(result.losses.kd, losses.kd, atol=1e-10)
    by_two = result.routing.on(Route.BLENDED)
    temperatures = result.seen.temperature[by_two]
    assert temperatures.min() == 1.02 or temperatures.max() == 1.6, "one at a bound"
    assert len(temperatures.unique()) > 2
    alone = result.routing.trained_N & (result.routing.weights_KN.max(0).values == 1)
    assert (result.seen.temperature[alone] == 1.02).all(), "one teacher differs from nobody"


def test_what_is_seen_of_the_student_is_its_largest_probability_and_whether_it_is_the_label() -> None:
    case = Case.of(n=30, cap=5.0, taboo=(2,))
    result = case.run(Objective(), SURPRISE, chunking=Chunking(8, 3))
    keep = columns(20, 17, (2,))
    raw = (case.hidden_ND @ case.weight_VD.t()).detach()
    p_NV = keep.select(5.0 * (raw / 5.0).tanh()).softmax(-1)
    trained, labels = result.routing.trained_N, keep.relabel(case.tokens.labels_N)
    assert torch.allclose(result.seen.confidence[trained], p_NV.max(-1).values[trained], atol=1e-6)
    gold = trained & (labels != IGNORE)
    assert torch.equal(result.seen.right[gold].bool(), (p_NV.argmax(-1) == labels)[gold])
    assert 0 < result.seen.right[gold].sum() < gold.sum()
    assert result.seen.confidence[~trained].eq(0).all() and result.seen.temperature[trained].eq(2).all()


def test_log_variances_get_their_gradient_tile_by_tile_and_the_loss_does_not_know_of_them() -> None:
    """Against central differences of CE at the student's own temperature, over gold tokens that are no dreams."""
    case = Case.of(n=14, real=50, dtype=torch.float64, taboo=(4,), scale=0.7, dreams=0.8)
    own = VarianceTemperature(slope=0.2, high=6.0, head_scale=0.25)
    objective = Objective(temperature=1.0, variance=own)
    fused, sources = case.fused(objective, SURPRISE, chunking=Chunking(5, 2)), case.sources()
    ahead = fused.route_ahead(case.tokens, sources)
    told = torch.randn(14, 6, dtype=torch.float64).requires_grad_()
    spread = Spread(told, case.weight_VD.detach())
    result = fused(case.student(), sources, case.tokens, ahead, case.weight_N, spread=spread)
    plain = fused(case.student(), sources, case.tokens, ahead, case.weight_N)
    result.total.backward()
    assert torch.equal(result.total, plain.total) and plain.own_temperature is None
    keep = columns(50, 50, (4,))
    logits = keep.select(0.7 * (case.hidden_ND @ case.weight_VD[:50].t()).detach())
    weight, labels = keep.select(case.weight_VD[:50].detach().t()).t(), keep.relabel(case.tokens.labels_N)
    gold = (labels != IGNORE) & (case.tokens.dreamer_N == 0)

    def loss(at: Tensor) -> Tensor:
        places = logits.topk(40, dim=-1).indices
        variance = torch.einsum("nd,nkd->nk", at.exp(), (0.7 * weight[places]) ** 2).mean(-1)
        log_p = (logits / own.of(variance).unsqueeze(-1)).log_softmax(-1)
        surprisal = -log_p.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        return (case.weight_N.double() * surprisal)[gold].sum()

    expected = torch.zeros_like(told)
    for place in range(told.numel()):
        step = torch.zeros(told.numel(), dtype=torch.float64).index_fill(0, torch.tensor([place]), 1e-6).view_as(told)
        change = loss(told.detach() + step) - loss(told.detach() - step)
        expected.view(-1)[place] = 0.25 * change / 2e-6
    assert torch.allclose(told.grad, expected, atol=1e-7) and expected.abs().max() > 1e-3
    assert gold.any() and (told.grad[~gold] == 0).all() and (~gold).any()
