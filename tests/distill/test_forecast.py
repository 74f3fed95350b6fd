"""What a recipe will not teach, on tokens small enough to reason about."""

from __future__ import annotations

import pytest
import torch

from ladder.distill.objective import Forecast, Objective, forecast, unknown
from ladder.distill.routing import RoutingSettings, gather_evidence, route
from ladder.distill.vocabulary import IGNORE

SURE_OF_1 = torch.tensor([0.05, 0.85, 0.05, 0.05]).log()
UNSURE = torch.tensor([0.2, 0.3, 0.25, 0.25]).log()
AGREEMENT, SURPRISE = RoutingSettings("agreement"), RoutingSettings("surprise")
# The teachers are wrong about both labels, and of one of them sure.
LOGITS, LABELS = torch.stack([SURE_OF_1, UNSURE]), torch.tensor([2, 0])


def lost(objective: Objective, settings: RoutingSettings, second: torch.Tensor | None = LOGITS) -> int:
    routing = route(gather_evidence((LOGITS, second), LABELS), LABELS, settings)
    found = forecast((LOGITS, second), LABELS, routing, objective)
    assert found.unknown == 2
    return found.lost


def test_what_no_teacher_puts_first() -> None:
    logits = torch.stack([SURE_OF_1, SURE_OF_1, UNSURE, SURE_OF_1])
    labels = torch.tensor([1, 2, 0, IGNORE])
    assert unknown((logits, None), labels).tolist() == [False, True, True, False]
    assert unknown((logits, logits.roll(1, -1)), labels).tolist() == [False, False, True, False]


def test_two_teachers_that_agree_on_a_wrong_guess_win_against_a_small_alpha() -> None:
    """At T 1 the loss is least at alpha onehot + beta target: 0.2 and 0.3 stand against alpha in the unsure token, 0.05
    and 0.85 in the sure one."""
    assert lost(Objective(alpha=0.08, beta=0.92, temperature=1.0), AGREEMENT) == 2
    assert lost(Objective(alpha=0.1, beta=0.9, temperature=1.0), AGREEMENT) == 1
    assert lost(Objective(alpha=0.46, beta=0.54, temperature=1.0), AGREEMENT) == 0
    assert lost(Objective(alpha=0.46, beta=0.54, ce_on="fallback"), AGREEMENT) == 2


def test_a_temperature_leaves_more_to_the_label() -> None:
    """Softened targets hold the logits less firmly. In a wide vocabulary, with 0.5 for the wrong token and 0.02 for the
    label, T 1 ends at the wrong one and T 2 at the label."""
    p = torch.full((1, 2000), 0.48 / 1998)
    p[0, 7], p[0, 9] = 0.5, 0.02
    labels = torch.tensor([9])
    routing = route(gather_evidence((p.log(), p.log()), labels), labels, AGREEMENT)
    found = [forecast((p.log(), p.log()), labels, routing, Objective(temperature=t)).lost for t in (1.0, 2.0)]
    assert found == [1, 0]


def test_surprise_hands_what_they_do_not_know_to_the_label() -> None:
    assert lost(Objective(), SURPRISE) == 0 == lost(Objective(), SURPRISE, None)
    blunt = RoutingSettings("surprise", surprise_tau=0.1)
    assert lost(Objective(alpha=0.05, beta=0.95, temperature=1.0), blunt) == 1


def test_skipped_tokens_are_not_learned() -> None:
    routing = route(gather_evidence((LOGITS, LOGITS), LABELS), torch.full((2,), IGNORE), RoutingSettings("gold"))
    assert forecast((LOGITS, LOGITS), LABELS, routing, Objective()) == Forecast(2, 2)


def test_shares_add_up() -> None:
    assert (Forecast(3, 1) + Forecast(1, 1)).share == pytest.approx(0.5) and Forecast().share == 0.0
