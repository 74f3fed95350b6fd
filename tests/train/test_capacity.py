"""The tracker of the student's heads: its figures by hand, how it starts, that it changes nothing, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ladder.errors import RunError
from ladder.manifest import Capacity
from ladder.models.digest import folder_digest
from ladder.models.load import load_model
from ladder.run.hooks import metrics_of
from ladder.train.capacity import HeadTracker, figures
from ladder.train.ranks import ALONE
from ladder.train.trainer import Trainer


def test_dominance_is_the_norm_and_precision_what_does_not_vary() -> None:
    """Two heads of two dimensions: one says the same to every token, the other the opposite to every second one."""
    outputs = torch.tensor([[3.0, 4.0, 1.0, 0.0], [3.0, 4.0, -1.0, 0.0]]).expand(3, 2, 4)
    dominance, precision = figures(outputs, 2)
    assert dominance.tolist() == pytest.approx([5 / 2**0.5, 1 / 2**0.5])
    assert precision[0] > 1e5 and precision[1].item() == pytest.approx(1.0)
    mixed = torch.tensor([[3.0], [1.0]])
    assert figures(mixed, 1)[1].item() == pytest.approx(5.0), "4 of the mean square of 5 are constant"
    assert figures(torch.zeros(3, 4), 2).isfinite().all()


def test_the_first_step_counts_in_full_and_hazard_grows_with_what_is_known(parent: Path) -> None:
    """The original starts its average at 0, and a precision of 2 passes 1.5 after 14 steps."""
    tracker = HeadTracker(load_model(parent), Capacity())
    layers, heads = tracker.layers, tracker.heads
    precise = torch.stack([torch.ones(heads), torch.full((heads,), 2.0)])
    for number in range(3):
        tracker.seen = [[precise] for _ in range(layers)]
        found = tracker.update(ALONE)
        assert torch.allclose(tracker.corrected()[1], torch.tensor(2.0))
        assert found["explorers"] == 0.0 and found["hazard"] == 0.0, number
    varied = HeadTracker(load_model(parent), Capacity())
    for number in range(1, 8):
        varied.seen = [[torch.ones(2, heads)] for _ in range(layers)]
        assert varied.update(ALONE)["hazard.0"] == pytest.approx(min(1.0, number / 5) / 1.5)
    assert varied.explorers().all()


def test_it_watches_a_training_without_touching_it_and_resumes_bitwise(school: Any, tmp_path: Path) -> None:
    trainers, reports = {}, {}
    for name, watched in (("watched", {"capacity": {"decay": 0.5}}), ("plain", {})):
        manifest = school.make_manifest(accumulation=2, student={"adapter": {"r": 4, "dropout": 0.1}}, **watched)
        trainers[name] = Trainer(school.spec(manifest, name))
        batches = school.make_batches(manifest)
        reports[name] = school.run(trainers[name], batches, range(4))
    cut = school.make_manifest(accumulation=2, student={"adapter": {"r": 4, "dropout": 0.1}}, capacity={"decay": 0.5})
    first = Trainer(school.spec(cut, "cut"))
    school.run(first, batches, range(2))
    first.checkpoint()
    assert school.run(Trainer(school.spec(cut, "cut")), batches, range(2, 4)) == reports["watched"][2:]
    assert [one.loss for one in reports["watched"]] == [one.loss for one in reports["plain"]]
    shown = metrics_of(reports["watched"][-1])
    assert 0 <= shown["capacity/hazard"] <= 1 and shown["capacity/dominance"] > 0 and "capacity/hazard.0" in shown
    assert not any(name.startswith("capacity") for name in metrics_of(reports["plain"][-1]))
    for name, one in trainers.items():
        one.finish(tmp_path / name / "child")
    assert folder_digest(tmp_path / "watched" / "child") == folder_digest(tmp_path / "plain" / "child")


def test_a_single_position_says_nothing(parent: Path) -> None:
    model = load_model(parent).train()
    tracker = HeadTracker(model, Capacity(decay=0.5))
    model(torch.tensor([[5]]))
    assert tracker.update(ALONE) == {} and tracker.updates == 0
    model(torch.tensor([[5, 6, 7, 8]]))
    found = tracker.update(ALONE)
    assert 0 < found["precision"] < 100
    model(torch.tensor([[5]]))
    assert tracker.update(ALONE) == found, "nor does it change what is known"


def test_hooks_go_with_the_tracker(parent: Path) -> None:
    """A shared base outlives its students, and would run the hooks of all of them."""
    model = load_model(parent)

    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in model.modules())

    before, tracker = hooks(), HeadTracker(model, Capacity())
    assert hooks() == before + tracker.layers
    del tracker
    assert hooks() == before


def test_a_model_without_such_heads_is_an_error(parent: Path) -> None:
    model = load_model(parent)
    for layer in model.model.layers:
        layer.self_attn = nn.Identity()
    with pytest.raises(RunError, match="heads of LlamaForCausalLM were not found"):
        HeadTracker(model, Capacity())
