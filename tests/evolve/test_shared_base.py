"""A LoRA child and its teachers on one base: the same child as with a model each, in one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ladder.models import load_model
from ladder.verbs.export import export_generation

pytestmark = pytest.mark.usefixtures("ray_session")


def child(climbed: Any, folder: Path, share: str) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any]]:
    """Toy-G003 on top of the LoRA generation G002: its outcome, its weights, and what the run noted."""
    shutil.copytree(climbed.folder, folder)
    toy = type(climbed)(folder)
    path = toy.manifest(
        3,
        "teacher_student_distillation",
        parent=2,
        request={"grandparent_gen": "Toy-G001"},
        student={"adapter": {"r": 2, "alpha": 4, "dropout": 0.1}},
        stabilizers={"dreams": {"count": 16, "max_new_tokens": 8, "teacher": "both"}},
        runtime={"share_base": share},
    )
    outcome = toy.evolve(path)[0]
    if outcome.ref is None:
        return outcome, {}, {}
    weights = load_file(toy.registry.materialize(toy.registry.find("Toy-G003")) / "model.safetensors")
    notes = json.loads(next((toy.home / "runs" / "Toy-G003").glob("*/run.json")).read_text())
    return outcome, weights, notes


def test_sharing_changes_where_models_are_and_not_what_is_learned(climbed: Any, tmp_path: Path) -> None:
    shared, ours, frozen = child(climbed, tmp_path / "shared", "on")
    apart, theirs, _ = child(climbed, tmp_path / "apart", "off")
    assert shared.verdict == apart.verdict == "PROMOTED", (shared, apart)
    distance = sum((ours[name] - theirs[name]).norm() ** 2 for name in ours) ** 0.5
    start = load_file(climbed.registry.materialize(climbed.registry.find("Toy-G002")) / "model.safetensors")
    moved = sum((ours[name] - start[name]).norm() ** 2 for name in ours) ** 0.5
    assert moved > 0.01 and distance < 1e-3 * moved
    assert set(frozen["frozen"]) == {"1", "2"} and all(before == after for before, after in frozen["frozen"].values())


def test_a_child_that_trains_all_weights_cannot_share(climbed: Any, tmp_path: Path) -> None:
    shutil.copytree(climbed.folder, tmp_path / "copy")
    toy = type(climbed)(tmp_path / "copy")
    path = toy.manifest(3, "supervised_fine_tuning", parent=2, runtime={"share_base": "on"})
    outcome = toy.evolve(path)[0]
    assert outcome.verdict == "FAILED" and "runtime.share_base" in outcome.detail and "adapter" in outcome.detail


def test_four_bits_are_refused_without_a_gpu(climbed: Any, tmp_path: Path) -> None:
    shutil.copytree(climbed.folder, tmp_path / "copy")
    toy = type(climbed)(tmp_path / "copy")
    path = toy.manifest(3, "supervised_fine_tuning", parent=2, student={"adapter": {"r": 2, "base": "nf4"}})
    outcome = toy.evolve(path)[0]
    assert outcome.verdict == "FAILED" and "student.adapter.base" in outcome.detail
    assert "CUDA" in outcome.detail and "bitsandbytes" in outcome.detail


@pytest.mark.long
@pytest.mark.parametrize("adapter", [{"kind": "dora", "r": 2}, {"kind": "osf", "unfreeze_rank_ratio": 0.25}])
def test_a_child_of_another_kind_of_adapter(climbed: Any, tmp_path: Path, adapter: dict[str, Any]) -> None:
    """On its parent's base, although that is an adapter itself; what is exported is merged, with its adapter beside."""
    shutil.copytree(climbed.folder, tmp_path / "copy")
    toy = type(climbed)(tmp_path / "copy")
    path = toy.manifest(
        3,
        "teacher_student_distillation",
        parent=2,
        request={"grandparent_gen": "Toy-G001"},
        student={"adapter": adapter},
        stabilizers={"dreams": {"count": 16, "max_new_tokens": 8, "teacher": "both"}},
        runtime={"share_base": "on"},
    )
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome
    notes = json.loads(next((toy.home / "runs" / "Toy-G003").glob("*/run.json")).read_text())
    assert set(notes["frozen"]) == {"1", "2"} and all(before == after for before, after in notes["frozen"].values())
    child = toy.registry.find("Toy-G003")
    out = export_generation(toy.registry, child, tmp_path / "out")
    parent = toy.registry.materialize(toy.registry.find("Toy-G002"))
    ids = torch.tensor([[1, 40, 41, 42]])
    alone = load_model(out)(ids).logits
    on_base = PeftModel.from_pretrained(load_model(parent), str(out / "adapter")).eval()(ids).logits
    assert (alone - on_base).abs().max() <= 1e-5 and (alone - load_model(parent)(ids).logits).abs().max() > 1e-4
    assert child.base_digest == toy.registry.find("Toy-G002").digest
