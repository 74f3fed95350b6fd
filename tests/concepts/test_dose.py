"""Doses: the divergence, and the search for the amount at which it is 1 nat."""

from __future__ import annotations

from collections.abc import Callable
from math import tanh
from pathlib import Path

import pytest
import torch

from ladder.concepts.dose import HIGH, LOW, distances, iso_kl, kl, percentile, search, walk
from ladder.concepts.steering import Push, steered
from ladder.concepts.vectors import Facts, Vectors
from ladder.errors import ModelError
from ladder.models import load_model


def test_the_divergence_against_float64() -> None:
    torch.manual_seed(0)
    one_NV, other_NV = 4 * torch.randn(7, 50), 4 * torch.randn(7, 50)
    p_NV, q_NV = one_NV.double().softmax(-1), other_NV.double().softmax(-1)
    exact_N = (p_NV * (p_NV / q_NV).log()).sum(-1)
    assert torch.allclose(kl(one_NV, other_NV).double(), exact_N, atol=1e-5)
    assert kl(one_NV.bfloat16(), other_NV.bfloat16()).dtype == torch.float32
    assert torch.equal(kl(one_NV, one_NV), torch.zeros(7))
    assert percentile(torch.arange(101.0)) == pytest.approx(95)
    assert percentile(torch.tensor([0.0, 1.0])) == pytest.approx(0.95)


@pytest.mark.parametrize("scale", [0.05, 0.7, 3.0, 11.0])
@pytest.mark.parametrize("top", [1.3, 4.0, 40.0])
def test_the_search_finds_one_nat_on_curves_that_rise_as_the_square_and_saturate(scale: float, top: float) -> None:
    asked: list[float] = []

    def curve(amount: float) -> float:
        asked.append(amount)
        return top * tanh((amount / scale) ** 2 / top)

    found = search(curve)
    assert abs(curve(found.amount) - 1) < 0.05 and not found.warning
    assert found.steps == len(asked) - 1 <= 12 and found.reached == curve(found.amount)
    assert search(curve) == found


def test_outside_of_the_bracket_is_its_end_with_a_warning() -> None:
    far, near = search(lambda amount: (amount / 100) ** 2), search(lambda amount: (amount / 0.001) ** 2)
    assert (far.amount, near.amount) == (HIGH, LOW) and all(
        "the end of the search" in one.warning for one in (far, near)
    )
    jump = search(lambda amount: 0.5 if amount < 1 else 2.0)
    assert jump.steps == 12 and "after 12 steps" in jump.warning
    with pytest.raises(ModelError, match="a distance of nan"):
        search(lambda amount: float("nan"))


def test_a_walk_takes_the_largest_multiple_that_survives() -> None:
    assert walk(lambda kappa: 1.0).amount == 1.0
    assert walk(lambda kappa: 0.0).amount == 0.2 and "0% of the texts survive" in walk(lambda kappa: 0.0).warning
    found = walk(lambda kappa: 1.0 if kappa < 0.6 else 0.5)
    assert 0.6 / 1.05 <= found.amount < 0.6 and not found.warning


def test_a_dose_moves_a_model_by_one_nat(make_folder: Callable[..., Path]) -> None:
    model = load_model(make_folder(5, layers=3))
    model.get_output_embeddings().weight.data.mul_(5)  # A random head is hardly moved by anything.
    generator = torch.Generator().manual_seed(0)
    by_layer = {1: torch.nn.functional.normalize(torch.randn(1, 32, generator=generator))}
    vectors, prompts = Vectors(("calm",), by_layer, Facts("m", "c")), [[5, 6, 7], [8, 9, 10, 11], [12]]
    told = {"pad": 0, "ends": [2]}
    found = iso_kl(model, prompts, vectors, "calm", [1], **told)
    assert abs(found.reached - 1) < 0.05 and not found.warning
    assert iso_kl(model, prompts, vectors, "calm", [1], **told) == found
    # The same by hand, for one prompt: greedy text of the steered model, scored by both.
    with torch.no_grad(), steered(model, vectors, [Push("calm", found.amount)], [1]):
        text = prompts[0][:]
        while len(text) < 3 + 20 and text[-1] != 2:
            text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
        p_NV = model(torch.tensor([text])).logits[0, 2:-1].double().softmax(-1)
    q_NV = model(torch.tensor([text])).logits[0, 2:-1].double().softmax(-1)
    pushes = [Push("calm", found.amount)]
    own_N = distances(model, prompts[:1], vectors, pushes, [1], **told)
    assert torch.allclose(own_N.double(), (p_NV * (p_NV / q_NV).log()).sum(-1), atol=1e-4)
