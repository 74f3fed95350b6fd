"""The shadow is the average that its formula says, and forgets where it began."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ladder.train.ema import Ema, ema_decay, start_weight


def parameters(value: float, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.full((3,), value, dtype=dtype))}


def test_warm_up() -> None:
    assert [ema_decay(t, 0.999) for t in (0, 1, 10)] == [0.1, 2 / 11, 11 / 20]
    assert ema_decay(8989, 0.999) == pytest.approx(0.999, abs=1e-6) and ema_decay(10**6, 0.999) == 0.999
    assert ema_decay(0, 0.05) == 0.05 and ema_decay(5, 0.0) == 0.0


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.999), (1, 0.999), (7, 0.5), (200, 0.99), (1200, 0.999)])
def test_the_start_weighs_the_product_of_the_decays(updates: int, decay: float) -> None:
    product = torch.tensor([min(decay, (1 + t) / (10 + t)) for t in range(updates)], dtype=torch.float64).prod().item()
    assert start_weight(updates, decay) == pytest.approx(product, rel=1e-12)
    ema = Ema(parameters(1.0), decay)
    for _ in range(min(updates, 200)):
        ema.update(parameters(0.0))
    assert ema.shadow["a"][0].item() == pytest.approx(start_weight(min(updates, 200), decay), rel=1e-4, abs=1e-30)


def test_the_shadow_is_lent_and_given_back_bit_by_bit() -> None:
    ema, own = Ema(parameters(1.0), 0.9), parameters(0.1, torch.bfloat16)
    before = own["a"].detach().clone()
    with pytest.raises(KeyError), ema.lent(own):
        assert own["a"].tolist() == [1.0] * 3
        raise KeyError
    assert torch.equal(own["a"], before)


def test_without_the_warm_up_the_seeds_decay_would_keep_the_start() -> None:
    assert start_weight(1200, 0.999) < 1e-8 < 0.30 < 0.999**1200


def test_the_shadow_is_the_weighted_sum_of_the_trajectory() -> None:
    values = torch.linspace(-1, 2, 30, dtype=torch.float64).tolist()
    ema, expected = Ema(parameters(5.0), 0.9), 5.0
    for t, value in enumerate(values):
        ema.update(parameters(value))
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
        assert ema.shadow["a"][0].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert ema.updates == 30


def test_the_shadow_is_float32_and_a_copy() -> None:
    live = parameters(1.0, torch.bfloat16)
    ema = Ema(live, 0.999)
    live["a"].data.fill_(1.0078125)  # The next number after 1 in bfloat16.
    ema.updates = 10**6
    ema.update(live)
    assert ema.shadow["a"].dtype == torch.float32
    assert 1.0 < ema.shadow["a"][0].item() < 1.001, "in bfloat16 so small a move would be lost"
    ema.copy_to(live)
    assert live["a"].dtype == torch.bfloat16 and live["a"][0].item() == 1.0
    ema.shadow["a"].fill_(3.0)
    assert live["a"][0].item() == 1.0


def test_going_on_from_a_checkpoint() -> None:
    one, other = Ema(parameters(1.0), 0.9), Ema(parameters(7.0), 0.9)
    one.update(parameters(2.0))
    saved = {name: value.clone() for name, value in one.shadow.items()}
    other.load(saved, one.updates)
    for ema in (one, other):
        ema.update(parameters(-1.0))
    assert torch.equal(one.shadow["a"], other.shadow["a"]) and one.updates == other.updates == 2
    assert saved["a"][0].item() != one.shadow["a"][0].item()
