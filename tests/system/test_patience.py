"""A command that says nothing for long gives a sign of life, and is quiet once something else is said."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.system import patience


def test_a_sign_of_life_until_somebody_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "EVERY", 0.05)
    patience.begin("import is at work")
    time.sleep(0.3)
    patience.end()
    said = capsys.readouterr().err
    assert said.startswith("ladder: import is at work: 0 s so far\n") and said.count("\n") >= 2
    time.sleep(0.2)
    assert capsys.readouterr().err.count("\n") <= 1


def test_a_call_that_ends_in_an_error_is_quiet_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(patience, "begin", lambda what: begun.append(what) or patience._going.append(Event()))
    done = CliRunner().invoke(app, ["lineage", "Luna", "--home", str(tmp_path / "none")])
    assert done.exit_code != 0 and begun == ["lineage is at work"] and patience._going == []
    CliRunner().invoke(app, ["data", "check", str(tmp_path / "none.csv")])
    assert begun[-1] == "data check is at work" and patience._going == []


def test_who_tells_begins_with_quiet() -> None:
    from ladder.report.console import Console

    patience.begin("x")
    Console()
    assert patience._going == []
