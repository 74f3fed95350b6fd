"""The student's variance head: what it learns, that it touches nothing else, and that it is never exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ladder.distill import VarianceTemperature
from ladder.errors import RunError
from ladder.models import Head, Proof
from ladder.models.digest import folder_digest
from ladder.train.trainer import Trainer
from ladder.train.variance import VarianceHead, variance_head

VARIES: dict[str, Any] = {"temperature": "variance", "schedule": "constant", "warmup": 0.0}


def trainer(school: Any, name: str, wanted: bool = True, **changes: Any) -> Trainer:
    manifest = school.make_manifest(**VARIES, student={"variance_head": wanted}, **changes)
    return Trainer(school.spec(manifest, name))


def test_it_moves_and_nothing_else_is_moved_by_it(school: Any, tmp_path: Path) -> None:
    """Reports but for its own temperature, and the child, bit for bit; nothing of it is in the folder."""
    with_it, without = trainer(school, "with"), trainer(school, "without", wanted=False)
    reports = []
    for one in (with_it, without):
        batches = school.make_batches(one.spec.manifest)
        reports.append(school.run(one, batches, range(4)))
        one.finish(tmp_path / one.spec.folder.name / "child")
    for ours, theirs in zip(*reports, strict=True):
        assert ours.loss == theirs.loss and ours.grad_norm == theirs.grad_norm and theirs.own_temperature is None
    temperatures = [report.own_temperature for report in reports[0]]
    assert temperatures[0] == pytest.approx(1.08, abs=0.02), "as it begins"
    assert abs(temperatures[-1] - temperatures[0]) > 1e-4 and with_it.variance.weight_DD.abs().max() > 0
    folders = [tmp_path / name / "child" for name in ("with", "without")]
    assert folder_digest(folders[0]) == folder_digest(folders[1])
    assert set(load_file(folders[0] / "model.safetensors")) == set(load_file(folders[1] / "model.safetensors"))


def test_a_run_that_is_cut_off_goes_on_bitwise(school: Any) -> None:
    whole, cut = trainer(school, "whole", accumulation=2), trainer(school, "cut", accumulation=2)
    batches = school.make_batches(whole.spec.manifest)
    expected = school.run(whole, batches, range(5))
    school.run(cut, batches, range(3))
    cut.checkpoint()
    again = trainer(school, "cut", accumulation=2)
    assert school.run(again, batches, range(3, 5)) == expected[3:]
    for ours, theirs in zip(again.variance.parameters(), whole.variance.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_student_that_is_too_sure_learns_to_be_softer_and_one_that_is_right_to_be_sharper() -> None:
    """Descent along its gradient, on labels that the largest logit misses or hits."""
    from ladder.distill.temperature import head_gradient

    torch.manual_seed(0)
    linear = nn.Linear(8, 50, bias=False)
    settings = VarianceTemperature(low=0.5)
    own, hidden = VarianceHead(Head(linear), settings), torch.randn(20, 8)
    logits = (4 * hidden @ linear.weight.t()).detach()
    for labels, softer in ((logits.argmin(-1), True), (logits.argmax(-1), False)):
        spread = own(hidden)
        before, gradient = head_gradient(
            logits, labels, torch.ones(20), spread.log_variance_ND, spread.weight_VD, 1.0, 50, settings
        )
        moved = spread.log_variance_ND.detach() - 0.5 * gradient
        after, _ = head_gradient(logits, labels, torch.ones(20), moved, spread.weight_VD, 1.0, 50, settings)
        assert (after > before).all() if softer else (after < before).all()


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        (Proof(None, "it was not found"), "it was not found"),
        (Proof(Head(nn.Linear(4, 9), cap=30.0)), "capped at 30"),
    ],
)
def test_a_head_that_cannot_be_read_is_an_error(proof: Proof, said: str) -> None:
    with pytest.raises(RunError, match=said) as caught:
        variance_head(proof, VarianceTemperature())
    assert caught.value.where == "student.variance_head"
