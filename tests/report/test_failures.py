"""An error that nobody foresaw: what is said of it, what its log holds, and what neither of them tells."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import DataError, Interrupted, OutOfMemory, Unexpected
from ladder.report import terminal
from ladder.report.terminal import exit_code, log_of, unexpected_told

ROW = "a row of a person"


class Panic(BaseException):
    """What a panic of a Rust library is in Python: no ``Exception``."""


def failing_in_ladder() -> None:
    from ladder.data.rows import read_rows

    read_rows(0)  # type: ignore[arg-type]


def raising(error: BaseException) -> Any:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize("error", [KeyError(ROW), Panic(ROW), RecursionError(ROW), AssertionError(ROW)])
def test_the_sentence_names_kind_and_log_and_the_log_says_the_rest(tmp_path: Path, error: BaseException) -> None:
    log = tmp_path / "runs" / "error.log"
    with pytest.raises(Unexpected) as told, unexpected_told(log, where="m.json"):
        raise error
    said = str(told.value)
    assert said.startswith(f"m.json: an unexpected {type(error).__name__}") and str(log) in said and ROW not in said
    text = log.read_text(encoding="utf-8")
    assert ROW in text and "Traceback (most recent call last)" in text and __file__ in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_place_is_the_innermost_line_of_ladder(tmp_path: Path) -> None:
    with (
        pytest.raises(Unexpected, match=r"an unexpected \w+ at ladder/manifest/\w+\.py:\d+ \("),
        unexpected_told(tmp_path / "log"),
    ):
        failing_in_ladder()


def test_an_error_from_inside_an_actor_is_named_as_it_was_there(tmp_path: Path) -> None:
    from ray.exceptions import RayTaskError

    there = 'Traceback\n  File "/elsewhere/site-packages/ladder/train/loss.py", line 17, in step\nKeyError: 3'
    error = RayTaskError("step", there, KeyError(3)).as_instanceof_cause()
    told = terminal.unexpected(error, tmp_path / "log")
    assert str(told).startswith("an unexpected KeyError at ladder/train/loss.py:17 (")
    assert there in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "error", [DataError("found"), Interrupted("stopped"), OSError("full"), KeyboardInterrupt(), SystemExit(3)]
)
def test_what_was_foreseen_and_what_stops_a_process_is_raised_as_it_is(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as told, unexpected_told(tmp_path / "log"):
        raise error
    assert told.value is error and list(tmp_path.iterdir()) == []


def test_memory_that_ran_out_is_no_defect(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory), unexpected_told(tmp_path / "log"):
        raise MemoryError
    assert list(tmp_path.iterdir()) == []


def test_a_log_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary1234")
    monkeypatch.setattr("sys.argv", ["ladder", "submit", "--address", "http://me:s3cret@host"])
    terminal.unexpected(ValueError("hf_canary1234 at postgresql://me:s3cret@host/db"), tmp_path / "log")
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert "hf_canary1234" not in text and "s3cret" not in text and "postgresql://host/db" in text


def test_a_log_that_cannot_be_written_lies_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert str(tmp_path) in str(terminal.unexpected(ValueError(ROW), tmp_path / "file" / "log"))
    (log,) = tmp_path.glob("ladder-*")
    assert ROW in log.read_text(encoding="utf-8")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert "stands above" in str(terminal.unexpected(ValueError(ROW), tmp_path / "file" / "log"))
    assert ROW in capsys.readouterr().err


def test_a_command_that_fails_leaves_its_log_in_a_home_that_is_there(tmp_path: Path, capsys: Any) -> None:
    home = tmp_path / "home"
    assert log_of(home).parent == log_of(None).parent == Path(tempfile.gettempdir())
    home.mkdir()
    assert exit_code(raising(Panic(ROW)), lambda: log_of(home)) == 1
    (log,) = (home / "logs").iterdir()
    said = capsys.readouterr().err
    assert said.startswith("ladder: an unexpected Panic") and said.count("\n") == 1 and str(log) in said


@pytest.mark.parametrize(("error", "code"), [(DataError("found"), 2), (OSError("full"), 1), (MemoryError(), 1)])
def test_an_error_is_one_line_and_an_exit_code(error: Exception, code: int, capsys: Any) -> None:
    assert exit_code(raising(error), lambda: Path("never")) == code
    said = capsys.readouterr().err
    assert said.startswith("ladder: ") and said.count("\n") == 1 and not Path("never").exists()


@pytest.mark.parametrize("error", [Interrupted("stopped"), KeyboardInterrupt(), SystemExit(3)])
def test_a_stop_is_no_error(error: BaseException) -> None:
    with pytest.raises(type(error)):
        exit_code(raising(error), lambda: Path("never"))
