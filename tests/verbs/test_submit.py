"""Submitting a job: what is refused before anything is sent. A real job is in ``test_head.py``."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder import cli
from ladder.errors import ManifestError, NotFound, RunError, UsageError
from ladder.verbs import submit as room
from ladder.verbs.init import create
from ladder.verbs.submit import Sent, submit


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


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The entrypoints that were sent, in words."""
    entrypoints: list[list[str]] = []

    def run(address: str, entrypoint: str, runtime_env: dict[str, Any], say: Any, *, wait: bool) -> Sent:
        entrypoints.append(shlex.split(entrypoint))
        return Sent("job-1", address)

    monkeypatch.setattr(room, "_run", run)
    return entrypoints


@pytest.mark.parametrize("job", ["evolve", "warm-cache"])
def test_a_job_is_one_of_the_modules_that_there_are(job: str, project: Path, tmp_path: Path, sent: Any) -> None:
    home = tmp_path / "home"
    manifests = sorted(path.name for path in project.glob("*.json"))
    assert submit([project], "http://127.0.0.1:9", home, project, wait=False, job=job).exit_code == 0
    module = f"ladder.jobs.{job.replace('-', '_')}"
    assert sent == [[sys.executable, "-m", module, "--home", str(home), *manifests]] and manifests
    assert hasattr(importlib.import_module(module), "main")


def test_generations_are_looked_up_where_the_home_is_here(empty_home: Path, tmp_path: Path, sent: Any) -> None:
    """A home elsewhere is looked into by the job."""
    with pytest.raises(NotFound, match="Mine"):
        submit(["Mine@HEAD"], "http://127.0.0.1:9", empty_home, tmp_path, wait=False, job="evaluate")
    assert sent == []


def test_generations_of_a_home_elsewhere_are_sent_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://register.example:5000")
    refs = ["Mine@HEAD", "Mine-G002"]
    sent_job = submit(refs, "http://head.example:8265", Path("/shared/home"), tmp_path, wait=False, job="evaluate")
    assert sent_job.exit_code == 0
    assert sent == [["python", "-m", "ladder.jobs.evaluate", "--home", "/shared/home", *refs]]


def test_a_cache_that_ends_with_its_process_is_not_warmed(project: Path, tmp_path: Path, sent: Any) -> None:
    path = sorted(project.glob("*.json"))[-1]
    manifest = json.loads(path.read_text()) | {"runtime": {"signal_cache": "off"}}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"runtime\.signal_cache.*expected disk"):
        submit([project], "http://127.0.0.1:9", tmp_path / "home", project, wait=False, job="warm-cache")
    assert sent == []


def test_another_job_is_refused_by_name(project: Path, tmp_path: Path, sent: Any) -> None:
    with pytest.raises(UsageError, match=r"'warm_cache' is no job.*evolve, evaluate, warm-cache"):
        submit([project], "http://127.0.0.1:9", tmp_path / "home", project, wait=False, job="warm_cache")
    shown = "".join(CliRunner().invoke(cli.app, ["submit", "--help"]).output.split())  # However its lines are broken.
    assert all(job in shown for job in room.JOBS) and sent == []


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


class FinishingHead:
    """A job client whose job prints a little more each time that it is asked, and then ends."""

    def __init__(self, *told: str, status: str) -> None:
        self.told, self.status, self.asked = told, status, 0

    def get_job_status(self, _: str) -> Any:
        from ray.job_submission import JobStatus

        self.asked += 1
        return JobStatus(self.status if self.asked == len(self.told) else "RUNNING")

    def get_job_logs(self, _: str) -> str:
        return "".join(self.told[: self.asked])


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_a_job_is_heard_in_whole_lines_to_its_end(status: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL_SECONDS", 0.0)
    heard: list[str] = []
    head: Any = FinishingHead("first\nsec", "ond\n", "", "last", status=status)
    assert room._follow(head, "job-1", heard.append) == status
    assert heard == ["first", "second", "last", f"job job-1: {status}"]
    assert Sent("job-1", "", status).exit_code == code
