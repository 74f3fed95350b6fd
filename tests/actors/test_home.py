"""Whoever is asked reads what the driver wrote into the home, and answers there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from ladder.actors import home, session
from ladder.actors.placement import Host, Machine, Node
from ladder.errors import RunError


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "LATE", 0.2)


def test_who_sees_the_home_answers(tmp_path: Path) -> None:
    (tmp_path / home.ASKED).write_text("token")
    assert home.answer(None, tmp_path, "token", "teacher1") is None
    assert home.unanswered(tmp_path, "token", "teacher1") is None
    assert home.unanswered(tmp_path, "token", "student") == "FileNotFoundError: No such file or directory"


def test_who_sees_another_folder_of_that_name_does_not(tmp_path: Path) -> None:
    (tmp_path / home.ASKED).write_text("another run's")
    assert home.answer(None, tmp_path, "token", "student") == "another file lies there"
    assert home.answer(None, tmp_path / "gone", "token", "student") == "FileNotFoundError: No such file or directory"


def test_who_may_not_write_says_so(tmp_path: Path) -> None:
    (tmp_path / home.ASKED).write_text("token")
    (tmp_path / "student").mkdir()
    assert "IsADirectoryError" in str(home.answer(None, tmp_path, "token", "student"))


class Seer:
    """An actor that sees this folder in place of the home."""

    def __init__(self, sees: Path | None = None, *, mute: bool = False) -> None:
        self.asked, self.sees, self.mute = 0, sees, mute
        self.__ray_call__ = SimpleNamespace(remote=self.call)

    def call(self, function: Any, folder: Path, *arguments: Any) -> Any:
        self.asked += 1
        return None if self.mute else function(self, self.sees or folder, *arguments)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> session.Session:
    monkeypatch.setattr(ray, "get", lambda given, timeout=None: given)
    made = session.Session("local")
    made.__dict__["machine"] = Machine((Node("north", 2.0, id="1"), Node("south", 2.0, id="2")))
    made._hosts = {"student": Host("h", 2, "", "1"), "teacher1": Host("h", 2, "", "2")}
    return made


def test_each_actor_is_asked_once_for_each_home(opened: session.Session, tmp_path: Path) -> None:
    seers = {"student": Seer(), "teacher1": Seer()}
    opened._actors = dict(seers)
    opened.check_home(tmp_path)
    opened.check_home(tmp_path)
    assert [one.asked for one in seers.values()] == [1, 1]
    (tmp_path / "other").mkdir()
    opened.check_home(tmp_path / "other")
    assert [one.asked for one in seers.values()] == [2, 2]
    assert not list((tmp_path / "cache").iterdir()), "nothing is left"


@pytest.mark.parametrize("blind", ["elsewhere", "mute"])
def test_a_node_that_does_not_see_the_home_is_named(opened: session.Session, tmp_path: Path, blind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    seer = Seer(tmp_path / "elsewhere") if blind == "elsewhere" else Seer(mute=True)
    opened._actors = {"student": Seer(), "teacher1": seer}
    with pytest.raises(RunError, match="node south, where the teacher1 lives, does not see the home") as caught:
        opened.check_home(tmp_path)
    assert caught.value.where == str(tmp_path) and "labels in runtime.devices" in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())
