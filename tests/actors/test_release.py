"""Who is done with a GPU gives its memory back: on the same one, another process may be next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladder.actors import remote
from ladder.actors.remote import EvaluatorActor, TeacherActor
from ladder.models import Stack
from ladder.teachers.teacher import TeacherSpec


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often it was."""
    times: list[int] = []
    monkeypatch.setattr(remote, "release", lambda: times.append(1))
    return times


def test_a_teacher_that_is_replaced_and_one_that_goes(parent: Path, released: list[int]) -> None:
    actor = TeacherActor()
    actor.load_teacher(TeacherSpec(parent, 1, "hidden", "float32"))
    assert released == []
    seen: list[bool] = []
    real, remote.release = remote.release, lambda: seen.append(1 in actor.teachers)
    try:
        actor.load_teacher(TeacherSpec(parent, 1, "hidden", "float32"))
    finally:
        remote.release = real
    assert seen == [False], "the old one is gone before the new one needs its room"
    actor.clear()
    assert released == [1]


def test_a_base_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    actor, seen = TeacherActor(), list[bool]()

    class Base:
        def __init__(self, folder: Path, dtype: str, device: str, tuner: str) -> None:
            self.folder, self.tuner = folder, tuner

    monkeypatch.setattr(remote, "SharedBase", Base)
    monkeypatch.setattr(remote, "release", lambda: seen.append(actor.base is None))
    for stack in (Stack(Path("a")), Stack(Path("a")), Stack(Path("b")), Stack(Path("b"), tuner="osf")):
        actor.base_of(stack, "float32", "cpu")
    assert seen == [True, True], "the old one is gone before the new one needs its room; two tuners share none"


@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluator_that_is_done(monkeypatch: pytest.MonkeyPatch, released: list[int], fails: bool) -> None:
    def run(*_: Any, **__: Any) -> str:
        if fails:
            raise ZeroDivisionError
        return "told"

    monkeypatch.setattr(remote.ask, "run_prompts", run)
    monkeypatch.setattr(remote.harness, "evaluate", run)
    actor: Any = EvaluatorActor()
    for ask in (
        lambda: actor.run_prompts(Path("a"), None, Path("b"), "float32", "cpu", 1),
        lambda: actor.run_suite(Path("a"), None, "float32", "cpu", 1),
    ):
        if fails:
            with pytest.raises(ZeroDivisionError):
                ask()
        else:
            assert ask() == "told"
    assert released == [1, 1]
