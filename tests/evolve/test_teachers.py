"""Teachers given by path: imported if new, refused if they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ladder.actors.placement import Machine, Slot
from ladder.manifest import TeachersRuntime, read_requests
from ladder.models.digest import tokenizer_digest
from ladder.models.preflight import stored_dtypes
from ladder.registry.lineage import Ancestry
from ladder.setup.roles import shared_stacks


def test_teachers_with_new_names_are_imported_first(
    ray_session: None, toy: Any, parent: Path, grandparent: Path
) -> None:
    path = _distillation(toy, parent, grandparent)
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    assert [known.ref for known in toy.registry.generations("Toy")] == ["Toy-G009", "Toy-G010", "Toy-G011"]


def test_a_teacher_with_another_tokenizer_is_refused_with_both_digests(
    ray_session: None, toy: Any, parent: Path, climbed: Any
) -> None:
    stranger = climbed.registry.materialize(climbed.registry.find("Toy-G000"))
    (outcome,) = toy.evolve(_distillation(toy, parent, stranger))
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 2)
    assert tokenizer_digest(parent)[:12] in outcome.detail and tokenizer_digest(stranger)[:12] in outcome.detail
    assert toy.registry.generations("Toy") == []


def test_a_path_that_holds_another_model_is_refused(copy_of: Callable[[], Any], climbed: Any) -> None:
    toy = copy_of()
    other = climbed.registry.materialize(climbed.registry.find("Toy-G000"))
    path = toy.manifest(3, "continual_pretraining", parent=2, teachers={"teacher1": {"path": str(other)}})
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "FAILED" and "registered as" in outcome.detail


def test_a_teacher_that_sees_more_teaches_something_else(copy_of: Callable[..., Any]) -> None:
    """Through actors, packed and cached: the child of a teacher that is shown the answer is another one."""
    digests = set()
    for name, shown in (("plain", {}), ("shown", {"teachers": {"teacher1": {"context": "{text} "}}})):
        toy = copy_of(name)
        request = {"grandparent_gen": "Toy-G001"}
        path = toy.manifest(
            3, "teacher_student_distillation", parent=2, request=request, data={"packing": True}, **shown
        )
        (outcome,) = toy.evolve(path)
        assert outcome.verdict == "PROMOTED", outcome.detail
        digests.add(toy.registry.find("Toy@HEAD").digest)
    assert len(digests) == 2


def _distillation(toy: Any, parent: Path, grandparent: Path) -> Path:
    return toy.manifest(
        11,
        "teacher_student_distillation",
        parent=10,
        request={"grandparent_gen": "Toy-G009"},
        teachers={
            "teacher1": {"gen": 10, "role": "primary", "path": str(parent)},
            "teacher2": {"gen": 9, "role": "stabilizing_critic", "path": str(grandparent)},
        },
    )


def test_a_bfloat16_family_stays_in_bfloat16(ray_session: None, toy: Any, narrow_parent: Path) -> None:
    """Imported by path, taught, and teaching: a child and a grandchild of adapters, whose weights were rounded."""
    lora, named = {"adapter": {"r": 2, "alpha": 4}}, {"teacher1": {"path": str(narrow_parent)}}
    grandchild = {"parent": 1, "request": {"grandparent_gen": "Toy-G000"}, "student": lora}
    paths = [
        toy.manifest(1, "supervised_fine_tuning", parent=0, teachers=named, student=lora),
        toy.manifest(2, "teacher_student_distillation", **grandchild),
    ]
    outcomes = toy.evolve(*paths)
    assert [outcome.verdict for outcome in outcomes] == ["PROMOTED"] * 2, outcomes
    assert toy.evolve(paths[0])[0].verdict == "PROMOTED", "and it is known again"
    for index in range(3):
        folder = toy.registry.materialize(toy.registry.find(f"Toy-G00{index}"))
        assert set(stored_dtypes(folder).values()) == {torch.bfloat16}
        assert (folder / "LICENSE").read_text() == "terms" and (folder / "tokenizer.model").is_file()
    notes = json.loads(next((toy.home / "runs" / "Toy-G002").glob("*/run.json")).read_text())
    assert notes["rounding"]["dtype"] == "bfloat16" and 0 < notes["rounding"]["share"] < 1
    metrics = toy.registry.step_metrics(notes["mlflow_run"], "rounding/")
    assert metrics["kept_share"] == [(6, notes["rounding"]["share"])]
    # What a base with adapters computes is not what was rounded: each teacher speaks as it is stored.
    line = tuple(toy.registry.generations("Toy")[:2])
    folders = {one.digest: toy.registry.materialize(one) for one in line}
    request = read_requests([paths[1]])[0]
    slots = dict.fromkeys(("student", "teacher1", "teacher2"), Slot(1, 0, "cpu"))
    shared = shared_stacks(request.manifest, Ancestry(line[1], line[0], line), folders, slots, Machine.alone(2))
    assert shared is not None and set(shared.teachers) == {1} and shared.teachers[1].adapters == ()
    assert shared.teachers[1].base == folders[line[1].digest]
    # Several ranks and several replicas have models of their own.
    place = (Ancestry(line[1], line[0], line), folders, slots, Machine.alone(2))
    assert shared_stacks(request.manifest, *place, ranks=2) is None
    for replicas, alone in ((1, False), ("auto", False), (2, True)):
        runtime = request.manifest.runtime.model_copy(update={"teachers": TeachersRuntime(replicas=replicas)})
        assert (shared_stacks(request.manifest.model_copy(update={"runtime": runtime}), *place) is None) is alone
