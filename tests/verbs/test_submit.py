"""Submitting a job: what is refused before anything is sent. A real job is in ``test_head.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladder.errors import RunError, UsageError
from ladder.verbs import submit as room
from ladder.verbs.init import create
from ladder.verbs.submit import submit


@pytest.fixture
def project(tmp_path: Path) -> Path:
    create(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_sqlite_home_on_another_machine_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="sqlite"):
        submit([project], "http://cluster.example:8265", Path("/shared/home"), project, wait=False)


def test_a_manifest_outside_the_folder_that_travels_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UsageError, match="outside"):
        submit([project], "http://127.0.0.1:48265", tmp_path / "home", tmp_path / "elsewhere", wait=False)


def test_no_head_is_a_clear_error(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no job can be sent"):
        submit([project], "http://127.0.0.1:9", tmp_path / "home", project, wait=False)


def test_settings_that_a_person_made_travel_with_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that nobody made here are chosen where the job runs, by whoever started that Ray, or by ladder."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    passed = room._runtime_env(tmp_path)["env_vars"]
    assert passed["OMP_WAIT_POLICY"] == "ACTIVE" and "TQDM_DISABLE" not in passed


class StartingHead:
    """A job client whose head has nobody yet who runs jobs, so many times."""

    def __init__(self, refusals: int, text: str = "status code 500: No available agent to submit job") -> None:
        self.refusals, self.text, self.asked = refusals, text, 0

    def submit_job(self, **_: object) -> str:
        self.asked += 1
        if self.asked <= self.refusals:
            raise RuntimeError(self.text)
        return "job-1"


def test_a_head_that_has_just_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL_SECONDS", 0.0)
    head: Any = StartingHead(3)
    endless: Any = StartingHead(10**6)
    assert room._sent(head, "python", {}, "http://127.0.0.1:1") == "job-1" and head.asked == 4
    monkeypatch.setattr(room, "AGENT_SECONDS", 0.0)
    with pytest.raises(RunError, match="No available agent"):
        room._sent(endless, "python", {}, "http://127.0.0.1:1")


def test_a_head_that_refuses_is_asked_once() -> None:
    head: Any = StartingHead(1, "status code 400: bad runtime_env")
    with pytest.raises(RunError, match=r"not taken.*bad runtime_env"):
        room._sent(head, "python", {}, "http://127.0.0.1:1")
    assert head.asked == 1
