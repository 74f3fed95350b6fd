"""A command in surroundings that are not UTF-8, or that make errors of warnings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import UsageError
from ladder.report import terminal

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def ladder(*arguments: str | bytes, cwd: Path, options: tuple[str, ...] = (), **environment: str) -> Any:
    """A finished command, and what it printed, in bytes."""
    command = [sys.executable, *options, "-m", "ladder", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, timeout=120)


def test_a_locale_of_ascii_reads_and_writes_utf_8_and_prints_ascii(tmp_path: Path) -> None:
    made = ladder("init", "Größe", cwd=tmp_path, **ASCII)
    assert made.returncode == 0, made.stderr
    assert rb"Gr\xf6\xdfe" in made.stdout and made.stdout.isascii()
    (folder,) = os.listdir(os.fsencode(tmp_path))
    assert folder.decode() == "Größe"


def test_json_in_ascii_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from ladder.commands import answers

    for encoding, printed in (("ascii", r"Gr\u00f6\u00dfe \ud83c\udf19"), ("utf-8", "Größe 🌙")):
        with (tmp_path / "out").open("w", encoding=encoding) as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            answers.answer({"said": "Größe 🌙"}, "", as_json=True)
        content = (tmp_path / "out").read_text(encoding=encoding)
        assert json.loads(content)["result"] == {"said": "Größe 🌙"} and printed in content


@pytest.mark.parametrize("argument", [b"\xff bad", b"--reason=\xe9"])
def test_an_argument_that_is_no_text_is_named(tmp_path: Path, argument: bytes) -> None:
    refused = ladder("rollback", "Luna", argument, cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr.count(b"\n") == 1
    shown = argument.decode("utf-8", "backslashreplace").encode()
    assert refused.stderr.startswith(b"ladder: the argument '" + shown + b"' is not UTF-8")


def test_a_home_whose_name_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_HOME", "/home/\udcff")
    with pytest.raises(UsageError, match=r"/home/\\xff' is not UTF-8"):
        terminal.check_arguments()


WARNED = """
import subprocess, sys, warnings
from ladder import __main__ as entry

def command():
    warnings.warn("from a library", DeprecationWarning)
    return subprocess.call([sys.executable, "-c", "import warnings; warnings.warn('from a child')"])

entry._command = command
sys.exit(entry.main())
"""


@pytest.mark.parametrize("how", ["option", "variable"])
def test_warnings_that_are_errors_end_no_command(how: str) -> None:
    """Torch, MLflow, Ray and others warn while they are imported."""
    options, told = (["-W", "error"], {}) if how == "option" else ([], {"PYTHONWARNINGS": "error"})
    done = subprocess.run(
        [sys.executable, *options, "-c", WARNED], env=os.environ | told, capture_output=True, text=True
    )
    assert done.returncode == 0 and "from a child" in done.stderr and "Traceback" not in done.stderr


def test_other_filters_and_options_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["e", "ignore::UserWarning", "error::DeprecationWarning", "once"])
    monkeypatch.setenv("PYTHONWARNINGS", "error,ignore::FutureWarning")
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", "seen", UserWarning, r"there\.", 7)
        warnings.filterwarnings("once", category=FutureWarning)
        kept = list(warnings.filters)
        warnings.simplefilter("error")
        terminal._forgive_warnings()
        assert list(warnings.filters) == kept
    assert sys.warnoptions == ["ignore::UserWarning", "once"]
    assert os.environ["PYTHONWARNINGS"] == "ignore::FutureWarning"
