"""A temperature for each token: its formula and bounds, what teachers differ by, and the gradients by finite
differences, with the mistakes of the original as mutants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ladder.distill import Objective
from ladder.distill.temperature import TOP, VarianceTemperature, head_gradient, teachers_variance
from ladder.errors import LadderError

H = 1e-6


def slopes(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Central differences of a scalar function, in every element."""
    found = torch.zeros_like(at)
    for place in range(at.numel()):
        step = torch.zeros_like(at).reshape(-1).index_fill(0, torch.tensor([place]), H).reshape(at.shape)
        found.view(-1)[place] = (function(at + step) - function(at - step)) / (2 * H)
    return found


def test_the_formula_with_the_seeds_defaults() -> None:
    found = VarianceTemperature().of(torch.tensor([0.0, 0.5, 0.8, 5.0]))
    assert found.tolist() == pytest.approx([1.0, 1.5, 1.8, 1.8])
    steep = VarianceTemperature(base=0.5, slope=2.0, exponent=0.5, low=0.6)
    assert steep.of(torch.tensor([0.0, 4.0])).tolist() == pytest.approx([0.6, 1.5])


@pytest.mark.parametrize(
    "settings", [VarianceTemperature(), VarianceTemperature(1.2, 0.7, 1.7), VarianceTemperature(0.9, 3, 0.4)]
)
def test_its_derivative_is_that_of_finite_differences_and_0_at_a_bound(settings: VarianceTemperature) -> None:
    inside = torch.tensor([0.01, 0.1, 0.3], dtype=torch.float64)
    outside = torch.tensor([40.0], dtype=torch.float64)
    for variance in (inside, outside):
        expected = slopes(lambda at: settings.of(at).sum(), variance)
        assert settings.derivative(variance).tolist() == pytest.approx(expected.tolist(), abs=1e-8)
    assert (settings.derivative(inside) > 0).all() and settings.derivative(outside).item() == 0.0
    below = VarianceTemperature(base=0.5)
    assert below.derivative(torch.tensor([0.1])).item() == 0.0


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 2.0}, {"base": 0.0}, {"slope": -1.0}, {"head_scale": -0.1}])
def test_figures_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LadderError, match="expected"):
        VarianceTemperature(**wrong)


def test_what_teachers_differ_by() -> None:
    """By hand over 50 columns, of which 40 count; a constant in a teacher's logits says nothing."""
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 50, dtype=torch.float64)
    shares = torch.tensor([[0.5, 0.2], [0.3, 0.8], [0.2, 0.0]], dtype=torch.float64)
    logs = logits.log_softmax(-1)
    mean = (shares.unsqueeze(-1) * logs).sum(0)
    spread = (shares.unsqueeze(-1) * (logs - mean) ** 2).sum(0)
    places = mean.argsort(-1, descending=True)[:, :TOP]
    expected = spread.gather(-1, places).mean(-1)
    shifted = logits + torch.tensor([0.0, 3.0, -7.0]).view(3, 1, 1)
    found = teachers_variance([*shifted], [*shifted.logsumexp(-1)], [*shares], 50)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    alone = teachers_variance([logits[0]], [logits[0].logsumexp(-1)], [shares[0]], 50)
    assert alone.tolist() == [0.0, 0.0]
    same = teachers_variance([logits[0]] * 2, [logits[0].logsumexp(-1)] * 2, [shares[1], 1 - shares[1]], 50)
    assert same.tolist() == pytest.approx([0.0, 0.0], abs=1e-24)


def test_removed_columns_are_never_among_the_largest() -> None:
    logits = [torch.randn(2, 12, dtype=torch.float64).index_fill(-1, torch.tensor([3, 7]), -1e30) for _ in range(2)]
    half = torch.full((2,), 0.5, dtype=torch.float64)
    found = teachers_variance(logits, [one.logsumexp(-1) for one in logits], [half, half], 10)
    kept = [place for place in range(12) if place not in (3, 7)]
    left = [one[:, kept] for one in logits]
    assert torch.allclose(found, teachers_variance(left, [one.logsumexp(-1) for one in left], [half, half], 10))


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    student, weight = 2 * torch.randn(4, 60, dtype=torch.float64), torch.randn(60, 6, dtype=torch.float64)
    labels = torch.tensor([5, 0, 59, 7])
    # The third is at a bound, the fourth has no weight in the loss.
    log_variance = torch.randn(4, 6, dtype=torch.float64) - 4
    log_variance[2] += 6
    return student, labels, torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64), log_variance, weight


def loss_of(log_variance: Tensor, scale: float, settings: VarianceTemperature) -> Tensor:
    """CE(z / T, y), summed with weights, from scratch."""
    student, labels, weight_n, _, weight = problem()
    places = student.topk(TOP, dim=-1).indices
    by_logit = torch.einsum("nd,nkd->nk", log_variance.exp(), (scale * weight[places]) ** 2)
    temperature = (settings.base * (1 + settings.slope * by_logit.mean(-1)) ** settings.exponent).clamp(
        settings.low, settings.high
    )
    log_p = (student / temperature.unsqueeze(-1)).log_softmax(-1)
    return -(weight_n * log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)).sum()


@pytest.mark.parametrize("settings", [VarianceTemperature(), VarianceTemperature(1.1, 0.8, 1.5, head_scale=0.3)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_heads_gradient_has_the_sign_and_scale_of_finite_differences(
    scale: float, settings: VarianceTemperature
) -> None:
    student, labels, weight_n, log_variance, weight = problem()
    expected = settings.head_scale * slopes(lambda at: loss_of(at, scale, settings), log_variance)
    temperature, found = head_gradient(student, labels, weight_n, log_variance, weight, scale, 60, settings)
    assert torch.allclose(found, expected, atol=1e-8, rtol=1e-6)
    assert found[2].abs().max() == 0 and temperature[2] == settings.high, "at a bound"
    assert found[3].abs().max() == 0 and found[:2].abs().min() > 1e-5
    # The original: the opposite sign, and the mean over the largest divided by their number once more.
    for wrong in (-found, found / TOP):
        assert not torch.allclose(wrong, expected, atol=1e-8, rtol=1e-6)


def test_an_objective_that_was_handed_the_manifests_word_says_so() -> None:
    word: Any = "variance"
    with pytest.raises(LadderError, match="found 'variance', expected a number"):
        Objective(temperature=word)
    with pytest.raises(LadderError, match="and a variance, expected 1"):
        Objective(temperature=2.0, variance=VarianceTemperature())
