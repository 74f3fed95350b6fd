"""Teachers given by path: imported if new, refused if they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladder.models.digest import tokenizer_digest


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
