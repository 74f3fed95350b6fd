"""The loss of a token against plain loops in probability space, its gradient against finite differences, the identities
of the objective, and the traps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
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
    TokenLosses,
    gather_evidence,
    route,
    token_losses,
)
from ladder.errors import LadderError
from ladder.manifest.effective import DISTILLATION, direction
from ladder.manifest.schema import Manifest

INF = math.inf
LN2 = math.log(2)
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Token:
    """One token, its routing, and the three models' logits."""

    student: list[float]
    teacher1: list[float]
    teacher2: list[float]
    label: int
    route: Route
    weight1: float
    gain: float
    js: float
    is_dream: bool


def softmax(logits: list[float], temperature: float) -> list[float]:
    total = sum(math.exp(z / temperature) for z in logits)
    return [math.exp(z / temperature) / total for z in logits]


def kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def target(token: Token, objective: Objective) -> list[float]:
    t = objective.temperature
    p1, p2, w = softmax(token.teacher1, t), softmax(token.teacher2, t), token.weight1
    if token.route == Route.TEACHER1:
        return p1
    if token.route == Route.TEACHER2:
        return p2
    if objective.pooling == "probabilities":
        return [w * a + (1 - w) * b for a, b in zip(p1, p2, strict=True)]
    powers = [a**w * b ** (1 - w) for a, b in zip(p1, p2, strict=True)]
    return [x / sum(powers) for x in powers]


def divergence(p: list[float], q: list[float], objective: Objective) -> float:
    if objective.direction == "forward":
        return kl(p, q)
    if objective.direction == "reverse":
        return kl(q, p)
    w = objective.jsd_weight
    m = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
    return w * kl(p, m) + (1 - w) * kl(q, m)


def plain(token: Token, objective: Objective) -> tuple[float, float, float, float]:
    """(loss, ce, kd, r) of one token, as objective.md words it."""
    if token.route == Route.SKIP:
        return 0.0, 0.0, 0.0, 0.0
    p = softmax(token.student, 1.0)
    cross_entropy = -math.log(p[token.label]) if token.label != IGNORE else 0.0
    ce = 0.0 if token.is_dream or (objective.ce_on == "fallback" and token.route != Route.GOLD) else cross_entropy
    if token.route == Route.GOLD:
        kd = cross_entropy
    else:
        t = objective.temperature
        kd = t**2 * divergence(target(token, objective), softmax(token.student, t), objective)
    r = (1 - token.js / LN2) * kl(softmax(token.teacher1, 1.0), p) if token.route == Route.BLENDED else 0.0
    return objective.alpha * ce + objective.beta * token.gain * kd + objective.gamma * r, ce, kd, r


objectives = st.builds(
    Objective,
    alpha=st.sampled_from([0.0, 0.1, 1.0]),
    beta=st.sampled_from([0.0, 0.9, 1.0]),
    gamma=st.sampled_from([0.0, 0.5]),
    temperature=st.sampled_from([0.7, 1.0, 2.0, 4.0]),
    pooling=st.sampled_from(["probabilities", "logits"]),
    direction=st.sampled_from(["forward", "reverse", "jsd"]),
    jsd_weight=st.sampled_from([0.1, 0.5, 0.8]),
    ce_on=st.sampled_from(["gold", "fallback"]),
)


@st.composite
def batches(draw: st.DrawFn) -> list[Token]:
    size = draw(st.integers(2, 6))
    logits = st.lists(st.floats(-5, 5), min_size=size, max_size=size)

    def token() -> Token:
        is_dream = draw(st.booleans())
        kind = draw(st.sampled_from([Route.TEACHER1, Route.TEACHER2] if is_dream else list(Route)))
        lowest = 0 if kind == Route.GOLD else -1
        label = draw(st.integers(lowest, size - 1))
        share = {Route.BLENDED: draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]) | st.floats(0, 1)), Route.TEACHER1: 1.0}
        gain = {Route.SKIP: 0.0, Route.GOLD: draw(st.sampled_from([0.5, 1.0]))}
        return Token(
            draw(logits),
            draw(logits),
            draw(logits),
            IGNORE if label < 0 else label,
            kind,
            share.get(kind, 0.0),
            gain.get(kind, 1.0),
            draw(st.floats(0, LN2)),
            is_dream,
        )

    return [token() for _ in range(draw(st.integers(1, 4)))]


def double(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def two_weights(weight1: list[float], route_of: list[int]) -> Tensor:
    """Weights [2, N] of two teachers; none on SKIP and GOLD."""
    return double([weight1, [1 - w if r >= Route.TEACHER1 else 0.0 for w, r in zip(weight1, route_of, strict=True)]])


def routing_of(batch: list[Token]) -> Routing:
    return Routing(
        torch.tensor([t.route for t in batch], dtype=torch.int8),
        two_weights([t.weight1 for t in batch], [t.route for t in batch]),
        double([t.gain for t in batch]),
        1 - double([t.js for t in batch]) / LN2,
    )


def losses_of(
    batch: list[Token], objective: Objective, dtype: torch.dtype = torch.float64
) -> tuple[TokenLosses, Tensor]:
    student = double([t.student for t in batch]).to(dtype).requires_grad_()
    found = token_losses(
        student,
        [double([t.teacher1 for t in batch]).to(dtype), double([t.teacher2 for t in batch]).to(dtype)],
        torch.tensor([t.label for t in batch]),
        routing_of(batch),
        objective,
        torch.tensor([t.is_dream for t in batch]),
    )
    return found, student


def gradient_of(loss_N: Tensor, student: Tensor) -> Tensor:
    return torch.autograd.grad(loss_N.sum(), student)[0]


def numeric_gradient(token: Token, objective: Objective) -> list[float]:
    step = 1e-5

    def moved(i: int, by: float) -> float:
        return plain(replace(token, student=[z + by * (i == j) for j, z in enumerate(token.student)]), objective)[0]

    return [(moved(i, step) - moved(i, -step)) / (2 * step) for i in range(len(token.student))]


@EXAMPLES
@given(batches(), objectives)
def test_values_and_gradients_against_plain_loops(batch: list[Token], objective: Objective) -> None:
    found, student = losses_of(batch, objective)
    expected = [plain(token, objective) for token in batch]
    for i, name in enumerate(("loss", "ce", "kd", "regularizer")):
        assert getattr(found, name).tolist() == pytest.approx([e[i] for e in expected], abs=1e-10), name
    gradient = gradient_of(found.loss, student) if found.loss.requires_grad else torch.zeros_like(student)
    for row, token in zip(gradient.tolist(), batch, strict=True):
        assert row == pytest.approx(numeric_gradient(token, objective), abs=1e-7)


@EXAMPLES
@given(batches(), objectives)
def test_float32_is_near_float64(batch: list[Token], objective: Objective) -> None:
    exact, student64 = losses_of(batch, objective)
    found, student32 = losses_of(batch, objective, torch.float32)
    assert found.loss.tolist() == pytest.approx(exact.loss.tolist(), rel=1e-5, abs=1e-5)
    if exact.loss.requires_grad:
        a, b = gradient_of(exact.loss, student64), gradient_of(found.loss, student32)
        assert (a - b).norm() <= 1e-5 * (1 + a.norm())


# The identities of the objective.

UNLABELLED = torch.full((5,), IGNORE)


def random_logits(rows: int, size: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("routing", ["agreement", "surprise"])
def test_three_equal_models_cost_nothing(direction: Any, pooling: Any, dtype: torch.dtype, routing: Any) -> None:
    z = random_logits(5, 50_000).to(dtype)
    student = z.clone().requires_grad_()
    routes = route(gather_evidence((z, z), UNLABELLED), UNLABELLED, RoutingSettings(routing))
    found = token_losses(
        student, (z, z), UNLABELLED, routes, Objective(direction=direction, pooling=pooling, gamma=0.5)
    )
    assert found.loss.abs().max() < 1e-6
    assert gradient_of(found.loss, student).norm() < 1e-6
    assert (routes.route_N == Route.BLENDED).all() and routes.agreement_N.min() > 1 - 1e-6


@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_two_equal_teachers_are_one_teacher(pooling: Any) -> None:
    z, student = random_logits(5, 9), random_logits(5, 9, seed=1)
    objective = Objective(pooling=pooling, gamma=0.2)
    both = route(gather_evidence((z, z), UNLABELLED), UNLABELLED, RoutingSettings("agreement"))
    one = route(gather_evidence((z, None), UNLABELLED), UNLABELLED, RoutingSettings("agreement"))
    found = token_losses(student, (z, z), UNLABELLED, both, objective).loss
    alone = token_losses(student, (z, None), UNLABELLED, one, objective).loss
    assert found.tolist() == pytest.approx(alone.tolist(), abs=1e-12)
    assert (found > 0.1).all()


@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_swapping_equally_confident_teachers_changes_nothing_in_a_blend(pooling: Any) -> None:
    z1, student = random_logits(5, 9, scale=0.2), random_logits(5, 9, seed=1)
    z2 = z1.flip(-1)
    there, back = (
        route(gather_evidence((a, b), UNLABELLED), UNLABELLED, RoutingSettings("agreement"))
        for a, b in ((z1, z2), (z2, z1))
    )
    assert (there.route_N == Route.BLENDED).all()
    objective = Objective(pooling=pooling)
    found = token_losses(student, (z1, z2), UNLABELLED, there, objective).loss
    swapped = token_losses(student, (z2, z1), UNLABELLED, back, objective).loss
    assert found.tolist() == pytest.approx(swapped.tolist(), abs=1e-12)


def blended(rows: int, weight: float = 0.5) -> Routing:
    one = torch.ones(rows, dtype=torch.float64)
    return Routing((one * Route.BLENDED).to(torch.int8), torch.stack([weight * one, (1 - weight) * one]), one, one)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_temperature_scales_logits_and_loss(direction: Any, pooling: Any) -> None:
    s, z1, z2 = (random_logits(5, 9, seed=i) for i in range(3))
    t = 3.0
    hot = Objective(temperature=t, direction=direction, pooling=pooling)
    cold = replace(hot, temperature=1.0)
    found = token_losses(s, (z1, z2), UNLABELLED, blended(5, 0.3), hot).kd
    scaled = token_losses(s / t, (z1 / t, z2 / t), UNLABELLED, blended(5, 0.3), cold).kd
    assert found.tolist() == pytest.approx((t**2 * scaled).tolist(), rel=1e-12)


def test_a_hot_gradient_tends_to_the_difference_of_centred_logits() -> None:
    s, z = random_logits(5, 9).requires_grad_(), random_logits(5, 9, seed=1)
    found = token_losses(s, (z, z), UNLABELLED, blended(5), Objective(beta=1.0, temperature=1e6)).loss
    limit = ((s - s.mean(-1, keepdim=True)) - (z - z.mean(-1, keepdim=True))).detach() / 9
    assert torch.allclose(gradient_of(found, s), limit, atol=1e-5)


def test_the_two_poolings_and_three_directions_differ() -> None:
    s, z1, z2 = (random_logits(5, 9, seed=i) for i in range(3))
    values = [
        token_losses(s, (z1, z2), UNLABELLED, blended(5), Objective(pooling=p, direction=d)).kd.sum().item()
        for p in ("probabilities", "logits")
        for d in ("forward", "reverse", "jsd")
    ]
    assert len({round(value, 3) for value in values}) == 6


# Traps.

RUBBISH = torch.tensor([math.nan, INF, -INF, 1e38, 0.0])


def five_routes() -> Routing:
    """SKIP, GOLD, TEACHER1, TEACHER2, BLENDED."""
    return Routing(
        torch.arange(5).to(torch.int8),
        torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.4], [0.0, 0.0, 0.0, 1.0, 0.6]]),
        torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0]),
        1 - torch.tensor([0.6, 0.6, 0.6, 0.0, 0.1]) / LN2,
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_what_a_route_does_not_read_may_hold_anything(direction: Any, pooling: Any) -> None:
    s, z1, z2 = (random_logits(5, 5, seed=i).float() for i in range(3))
    labels = torch.tensor([1, 2, 3, 4, 0])
    objective = Objective(direction=direction, pooling=pooling, gamma=0.3)

    def run(s: Tensor, z1: Tensor, z2: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        student = s.clone().requires_grad_()
        loss = token_losses(student, (z1, z2), labels, routing, objective).loss
        return loss.detach(), gradient_of(loss, student)

    loss, gradient = run(s, z1, z2, five_routes())
    s, z1, z2 = s.clone(), z1.clone(), z2.clone()
    s[0] = RUBBISH
    for unread in (0, 1, 3):
        z1[unread] = RUBBISH
    for unread in (0, 1, 2):
        z2[unread] = RUBBISH
    routing = five_routes()
    routing.agreement_N[:4] = math.nan
    rubbish_loss, rubbish_gradient = run(s, z1, z2, routing)
    assert torch.equal(rubbish_loss, loss) and torch.equal(rubbish_gradient, gradient)
    assert loss[0] == 0 and (gradient[0] == 0).all()
    assert (loss[1:] > 0).all() and (gradient[1:].norm(dim=-1) > 0).all()


def test_a_batch_of_skips_costs_exactly_nothing_and_still_has_a_graph() -> None:
    student = random_logits(2, 4).requires_grad_()
    zero = torch.zeros(2)
    routing = Routing(zero.to(torch.int8), zero.expand(2, -1), zero, zero)
    labels = torch.tensor([1, IGNORE])
    for teacher in (None, random_logits(2, 4)):
        loss = token_losses(student, (teacher, teacher), labels, routing, Objective(gamma=1.0)).loss
        assert loss.tolist() == [0.0, 0.0]
        assert (gradient_of(loss, student) == 0).all()


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_a_column_masked_everywhere_is_a_column_removed(direction: Any, pooling: Any) -> None:
    labels, keep = torch.tensor([0, 2, 3, 2, IGNORE]), torch.tensor([0, 2, 3])
    objective = Objective(direction=direction, pooling=pooling, gamma=0.3)
    full = [random_logits(5, 4, seed=i) for i in range(3)]
    for z in full:
        z[:, 1] = -INF
    masked, short = full[0].requires_grad_(), full[0].detach()[:, keep].requires_grad_()
    short_labels = torch.tensor([0, 1, 2, 1, IGNORE])
    found = token_losses(masked, (full[1], full[2]), labels, five_routes(), objective).loss
    expected = token_losses(short, (full[1][:, keep], full[2][:, keep]), short_labels, five_routes(), objective).loss
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    gradient = gradient_of(found, masked)
    assert torch.allclose(gradient[:, keep], gradient_of(expected, short), atol=1e-12)
    assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("gap", [100.0, 1e4])
def test_underflow_leaves_value_and_gradient_finite(direction: Any, gap: float) -> None:
    z1, z2 = torch.tensor([[gap, 0.0, 0.0]] * 5), torch.tensor([[0.0, gap, 0.0]] * 5)
    student = torch.tensor([[0.0, 0.0, gap]] * 5, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 0])
    objective = Objective(direction=direction, gamma=0.3, temperature=1.0)
    loss = token_losses(student, (z1, z2), labels, five_routes(), objective).loss
    assert loss.isfinite().all() and gradient_of(loss, student).isfinite().all()


def test_a_term_without_weight_is_absent() -> None:
    """Its value is infinite here: the student has no mass where the label is."""
    student = torch.tensor([[0.0, -INF, 1.0]], requires_grad=True)
    one = torch.ones(1)
    routing = Routing(torch.tensor([Route.TEACHER1], dtype=torch.int8), torch.stack([one, 0 * one]), one, one)
    teacher = torch.tensor([[1.0, -INF, 0.0]])
    found = token_losses(student, (teacher, None), torch.tensor([1]), routing, Objective(alpha=0.0))
    assert found.ce.item() == INF and found.loss.isfinite().all()
    assert gradient_of(found.loss, student).isfinite().all()


def test_a_dream_is_never_gold() -> None:
    s, z1, z2 = (random_logits(5, 5, seed=i) for i in range(3))
    dreams = torch.tensor([False, False, True, True, False])
    labels = torch.tensor([1, 2, 3, 4, 0])
    objective = Objective(alpha=0.3, beta=0.9, gamma=0.5)
    found = token_losses(s, (z1, z2), labels, five_routes(), objective, dreams)
    awake = token_losses(s, (z1, z2), labels, five_routes(), objective)
    assert found.ce[2:4].tolist() == [0.0, 0.0] and (awake.ce[2:4] > 0).all()
    assert found.loss[2:4].tolist() == pytest.approx((0.9 * found.kd[2:4]).tolist())
    assert torch.equal(found.loss[[0, 1, 4]], awake.loss[[0, 1, 4]])


def test_no_gradient_reaches_a_teacher_and_half_precision_is_upcast() -> None:
    s, z1, z2 = (random_logits(5, 5, seed=i).bfloat16().requires_grad_() for i in range(3))
    loss = token_losses(s, (z1, z2), torch.tensor([1, 2, 3, 4, 0]), five_routes(), Objective(gamma=0.5)).loss
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert s.grad is not None and z1.grad is None and z2.grad is None
    exact = token_losses(
        s.double(), (z1.double(), z2.double()), torch.tensor([1, 2, 3, 4, 0]), five_routes(), Objective(gamma=0.5)
    ).loss
    assert loss.tolist() == pytest.approx(exact.tolist(), rel=1e-5)


def test_an_absent_teacher_is_missed_only_where_a_route_needs_it() -> None:
    s, z1, z2 = (random_logits(5, 5, seed=i) for i in range(3))
    labels = torch.tensor([1, 2, 3, 4, 0])

    def run(kinds: list[int], first: Tensor | None, second: Tensor | None) -> None:
        i = torch.tensor(kinds)
        rows1, rows2 = (None if z is None else z[i] for z in (first, second))
        all_five = five_routes()
        routing = all_five.at(i)
        found = token_losses(s[i], (rows1, rows2), labels[i], routing, Objective())
        expected = token_losses(s[i], (z1[i], z2[i]), labels[i], routing, Objective())
        assert torch.equal(found.loss, expected.loss)

    run([0, 1], None, None)
    run([0, 1, 2], z1, None)
    run([0, 1, 3], None, z2)
    for route_number in (2, 4):
        with pytest.raises(LadderError, match="teacher 1 is absent"):
            run([0, route_number], None, z2)
    for route_number in (3, 4):
        with pytest.raises(LadderError, match="teacher 2 is absent"):
            run([0, route_number], z1, None)


def test_the_regularizer_takes_the_first_teacher_there_is() -> None:
    s, z = random_logits(2, 4), random_logits(2, 4, seed=1)
    found = token_losses(s, (None, z), UNLABELLED[:2], blended(2, 0.0), Objective(gamma=1.0)).regularizer
    expected = token_losses(s, (z, z), UNLABELLED[:2], blended(2, 0.0), Objective(gamma=1.0)).regularizer
    assert found.min() > 0 and torch.equal(found, expected)
    with pytest.raises(LadderError, match="there is no teacher"):
        token_losses(s, (None, None), UNLABELLED[:2], replace(blended(2), weights_KN=torch.zeros(2, 2)), Objective())


def test_shapes_and_labels_that_do_not_fit() -> None:
    s, labels = random_logits(5, 5), torch.tensor([1, 2, 3, 4, 0])
    with pytest.raises(LadderError, match=r"teacher 1 has \(5, 4\) logits, expected \(5, 5\)"):
        token_losses(s, (s[:, :4], s), labels, five_routes(), Objective())
    with pytest.raises(LadderError, match=r"found \(4,\) labels"):
        token_losses(s, (s, s), labels[:4], five_routes(), Objective())
    with pytest.raises(LadderError, match=r"found \(5,\) routes"):
        token_losses(s[:4], (s[:4], s[:4]), labels[:4], five_routes(), Objective())
    with pytest.raises(LadderError, match="without label is routed to gold"):
        token_losses(s, (s, s), UNLABELLED, five_routes(), Objective())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"jsd_weight": 0.0},
        {"jsd_weight": 1.0},
        {"pooling": "mean"},
        {"direction": "sideways"},
        {"ce_on": "always"},
    ],
)
def test_an_objective_that_means_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(LadderError, match=rf"training_params\.{next(iter(wrong))}"):
        Objective(**wrong)


def test_defaults_are_the_manifest_s() -> None:
    request = {"child_gen": "Toy-G001", "parent_gen": "Toy-G000", "training_method": DISTILLATION}
    manifest = Manifest.model_validate({"evolution_request": request})
    stated = manifest.training_params.model_copy(update={"direction": direction(manifest)})
    for name, value in asdict(Objective()).items():
        assert getattr(stated, name) == value, name
