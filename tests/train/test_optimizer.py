"""Matrices decay, vectors do not, and the optimiser's state goes to disk and back."""

from __future__ import annotations

import torch
from torch import nn

from ladder.manifest.schema import TrainingParams
from ladder.train.checkpoint import dump_state, load_state
from ladder.train.optimizer import adamw


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "m": nn.Parameter(torch.randn(3, 4, generator=generator)),
        "v": nn.Parameter(torch.ones(4)),
        "x": nn.Parameter(torch.ones(2)),
    }


def steps(optimizer: torch.optim.Optimizer, live: dict[str, nn.Parameter], count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        for name in ("m", "v"):  # x never has a gradient
            live[name].grad = torch.full_like(live[name], step - 1.5)
        optimizer.step()


def test_only_matrices_decay() -> None:
    live = parameters()
    before = {name: value.detach().clone() for name, value in live.items()}
    optimizer = adamw(live, TrainingParams(lr=0.1, weight_decay=0.5))
    for value in live.values():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    assert torch.allclose(live["m"], before["m"] * (1 - 0.1 * 0.5)) and torch.equal(live["v"], before["v"])


def test_the_state_goes_on_where_it_was() -> None:
    params = TrainingParams(lr=0.1)
    whole, cut = parameters(), parameters()
    one = adamw(whole, params)
    steps(one, whole, 5)
    two = adamw(cut, params)
    assert dump_state(two, nn.ParameterDict(cut)) == {}
    steps(two, cut, 2)
    saved = {name: value.clone() for name, value in dump_state(two, nn.ParameterDict(cut)).items()}
    assert saved.keys() == {f"{slot}/{name}" for slot in ("step", "exp_avg", "exp_avg_sq") for name in ("m", "v")}
    three = adamw(cut, params)
    load_state(three, nn.ParameterDict(cut), saved)
    steps(three, cut, 3, first=2)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert saved["step/m"].item() == 2, "what was loaded is a copy"


def test_asking_before_the_first_step_takes_none() -> None:
    """torch would take one, and a run that was cut off there would begin with its second."""
    live = parameters()
    optimizer = adamw(live, TrainingParams(lr=0.1))
    assert dump_state(optimizer, nn.ParameterDict(live)) == {}
    load_state(optimizer, nn.ParameterDict(live), {})
    assert not optimizer.state and all(value.grad is None for value in live.values())


def test_the_learning_rate_and_the_decay_are_those_of_the_manifest() -> None:
    """A run that goes on under a changed schedule does not get them from its checkpoint."""
    live = parameters()
    before = adamw(live, TrainingParams(lr=0.1, weight_decay=0.5))
    steps(before, live, 2)
    after = adamw(live, TrainingParams(lr=0.3, weight_decay=0.25))
    weights = {name: value.detach().clone() for name, value in live.items()}
    load_state(after, nn.ParameterDict(live), dump_state(before, nn.ParameterDict(live)))
    assert [(group["lr"], group["weight_decay"]) for group in after.param_groups] == [(0.3, 0.25), (0.3, 0.0)]
    assert live["x"] not in after.state and after.state[live["m"]]["step"].item() == 2
    assert all(torch.equal(live[name], weights[name]) for name in live)


def test_the_state_of_another_optimiser_is_kept_by_the_same_names() -> None:
    """Of whatever tensors it keeps: torch says which."""
    whole, cut = parameters(), parameters()
    one, two = (torch.optim.SGD(live.values(), lr=0.1, momentum=0.9) for live in (whole, cut))
    steps(one, whole, 5)
    steps(two, cut, 2)
    saved = dump_state(two, nn.ParameterDict(cut))
    assert saved.keys() == {"momentum_buffer/m", "momentum_buffer/v"}
    three = torch.optim.SGD(cut.values(), lr=0.1, momentum=0.9)
    load_state(three, nn.ParameterDict(cut), saved)
    steps(three, cut, 3, first=2)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
