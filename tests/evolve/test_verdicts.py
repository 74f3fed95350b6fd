"""Verdicts other than PROMOTED, and what they do to HEAD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ladder.report.console import Outcome, worst
from tests.evolve.conftest import STRICT


def test_a_child_that_fails_a_gate_is_kept_and_head_stays(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    path = toy.manifest(3, "supervised_fine_tuning", parent=2, gates=STRICT)
    (outcome,) = toy.evolve(path)
    assert (outcome.verdict, outcome.exit_code) == ("REJECTED", 3)
    assert "generalize" in outcome.detail
    assert toy.registry.head("Toy").ref == "Toy-G002"
    assert toy.registry.find("Toy-G003").failed_gates == ("generalize",)
    assert [event.kind for event in toy.registry.history("Toy")][-1] == "reject"
    (again,) = toy.evolve(path)
    assert (again.trained, again.exit_code) == (False, 3)
    child_of_rejected = toy.manifest(4, "supervised_fine_tuning", parent=3)
    (blocked,) = toy.evolve(child_of_rejected)
    assert (blocked.verdict, blocked.exit_code) == ("BLOCKED", 1)
    second = toy.manifest(3, "supervised_fine_tuning", parent=2)
    (retried,) = toy.evolve(second)
    assert (retried.verdict, retried.ref) == ("PROMOTED", "Toy-G003.2")


def test_a_forbidden_word_in_an_answer_rejects(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    laws = {"forbidden_text": ["[a-zA-Z]"], "sampled_answers": 4, "sampled_tokens": 8}
    (outcome,) = toy.evolve(toy.manifest(3, "supervised_fine_tuning", parent=2, laws=laws))
    assert outcome.verdict == "REJECTED" and "laws" in outcome.detail


def test_a_parent_that_is_not_head_is_refused_and_a_branch_waits(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    path = toy.manifest(3, "continual_pretraining", parent=1)
    (outcome,) = toy.evolve(path)
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 4)
    assert "Toy-G002" in outcome.detail and toy.registry.head("Toy").ref == "Toy-G002"
    branch = toy.manifest(3, "continual_pretraining", parent=1, request={"branch": True})
    (outcome,) = toy.evolve(branch)
    assert (outcome.verdict, outcome.exit_code) == ("PASSED", 4)
    assert toy.registry.head("Toy").ref == "Toy-G002"


def test_another_manifest_cannot_take_a_promoted_name(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    path = toy.manifest(1, "continual_pretraining", parent=0, seeds={"data": 5})
    toy.registry.rollback("Toy", to=toy.registry.find("Toy-G000"), reason="test")
    (outcome,) = toy.evolve(path)
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 2)
    assert (
        "Toy-G001 was PROMOTED from another manifest: seeds.data was 0 and is 5 (write child_gen: Toy-G003"
        in outcome.detail
    )


def test_rollback_and_promote_leave_a_history(copy_of: Callable[[], Any]) -> None:
    registry = copy_of().registry
    back = registry.rollback("Toy", reason="test")
    assert back.ref == "Toy-G001" == registry.head("Toy").ref
    registry.promote(registry.find("Toy-G002"), expected=back, reason="test")
    assert [event.kind for event in registry.history("Toy")] == ["promote"] * 3 + ["rollback", "promote"]


@pytest.mark.parametrize(
    ("codes", "expected"), [((), 0), ((0, 0), 0), ((0, 3), 3), ((4, 0), 4), ((4, 3), 3), ((3, 2), 2), ((2, 1, 3), 1)]
)
def test_the_worst_exit_code_wins(codes: tuple[int, ...], expected: int) -> None:
    assert worst([Outcome("Toy-G000", "x", "", code) for code in codes]) == expected
