"""What a recipe will not teach, on tokens small enough to reason about."""

from __future__ import annotations

import pytest
import torch

from ladder.distill.forecast import Forecast, forecast
from ladder.distill.objective import Objective, token_losses
from ladder.distill.routing import RoutingSettings, gather_evidence, route
from ladder.distill.vocabulary import IGNORE

SURE_OF_1 = torch.tensor([0.05, 0.85, 0.05, 0.05]).log()
UNSURE = torch.tensor([0.2, 0.3, 0.25, 0.25]).log()
SEED, SURPRISE = RoutingSettings("seed"), RoutingSettings("surprise")
# The teachers know the first label, are wrong about the next two (one of them surely), and the last has none.
LOGITS = torch.stack([SURE_OF_1, SURE_OF_1, UNSURE, SURE_OF_1])
LABELS, ROWS = torch.tensor([1, 2, 0, IGNORE]), torch.tensor([0, 0, 1, 1])


def of(objective: Objective, settings: RoutingSettings, second: torch.Tensor | None = LOGITS) -> Forecast:
    return forecast(LOGITS, second, LABELS, ROWS, objective, settings)


def test_two_teachers_that_agree_on_a_wrong_guess_win_against_a_small_alpha() -> None:
    # In the unsure row the label has 0.2 and the first token 0.3, in the sure one 0.05 and 0.85.
    assert of(Objective(alpha=0.08, beta=0.92), SEED) == Forecast(2, 2)
    assert of(Objective(alpha=0.1, beta=0.9), SEED) == Forecast(2, 1)
    assert of(Objective(alpha=0.45, beta=0.55), SEED) == Forecast(2, 0)
    assert of(Objective(alpha=0.45, beta=0.55, ce_on="fallback"), SEED) == Forecast(2, 2)


def test_surprise_hands_what_they_do_not_know_to_the_label() -> None:
    assert of(Objective(), SURPRISE) == Forecast(2, 0)
    blunt = RoutingSettings("surprise", surprise_tau=0.1)
    assert of(Objective(alpha=0.05, beta=0.95), blunt) == Forecast(2, 1)
    assert of(Objective(), SURPRISE, None) == Forecast(2, 0)


def test_what_either_teacher_knows_is_not_unknown() -> None:
    knows = torch.stack([SURE_OF_1, SURE_OF_1.roll(1), UNSURE, SURE_OF_1])
    assert of(Objective(), SEED, knows).unknown == 1 == forecast(knows, LOGITS, LABELS, ROWS, Objective(), SEED).unknown


def test_skipped_tokens_are_not_learned() -> None:
    far = torch.stack([UNSURE.roll(number) for number in range(4)]) * 9
    settings = RoutingSettings("seed", js_threshold=0.0, confidence_threshold=1.0)
    assert of(Objective(alpha=0.0, beta=0.0), settings, far).lost == of(Objective(), settings, far).unknown > 0
    assert of(Objective(alpha=0.0, beta=1.0), settings, far).lost == 0


def test_it_is_where_descent_ends() -> None:
    """The loss itself, minimised: the first token is the gold label where the forecast says so."""
    objective = Objective(alpha=0.12, beta=0.88, temperature=1.0)
    routing = route(gather_evidence(LOGITS, LOGITS, LABELS), LABELS, SEED, None, ROWS)
    student = torch.zeros(4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        token_losses(student, LOGITS, LOGITS, LABELS, routing, objective).loss.sum().backward()
        optimizer.step()
    assert (student.argmax(-1) == LABELS).tolist() == [True, False, True, False]


def test_shares_add_up() -> None:
    assert (Forecast(3, 1) + Forecast(1, 1)).share == pytest.approx(0.5) and Forecast().share == 0.0
