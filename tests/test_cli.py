"""The command as people call it: exit codes, messages, and no trace of what was refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder import cli
from tests.answers import result_of
from tests.report.conftest import worth
from tests.report.test_lineage import generation

VERBS = {
    "run": ("init", "plan", "evolve", "submit"),
    "look": ("lineage", "show", "sample", "counts", "eval", "schema", "ui", "doctor"),
    "store": ("import", "rollback", "promote", "verify", "prune", "backup", "restore", "export"),
}


def ladder(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ladder", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_help_names_every_verb(tmp_path: Path) -> None:
    shown = ladder("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert [verb for verbs in VERBS.values() for verb in verbs if verb not in shown.stdout] == []


def test_schema_is_json_with_every_section(tmp_path: Path) -> None:
    schema = json.loads(ladder("schema", cwd=tmp_path).stdout)
    assert {"evolution_request", "data", "student", "gates", "laws", "runtime"} <= schema["properties"].keys()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``here(verb, ...)``: the same command in this process, for what does not depend on a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ladder", *arguments])
        try:
            code = cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


def test_init_writes_manifests_that_load(tmp_path: Path) -> None:
    from ladder.manifest import read_requests

    assert ladder("init", "mine", cwd=tmp_path).returncode == 0
    assert [str(request.child) for request in read_requests([tmp_path / "mine"])] == ["Mine-G000", "Mine-G001"]
    again = ladder("init", "mine", cwd=tmp_path)
    assert again.returncode == 2 and "not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lineage", "Luna"), "no store"),
        (("evolve", "missing.json"), "missing.json"),
        (("prune", "Luna"), "no store"),
        (("backup", "luna.tar"), "no store"),
        (("restore", "luna.tar"), "no such file"),
        (("import", "nowhere", "--as", "Luna"), "no generation name"),
        (("import", "nowhere", "--as", "Luna-G000"), "nowhere: does not exist"),
    ],
)
def test_usage_errors_are_one_line_with_exit_code_2(
    tmp_path: Path, here: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    refused = here(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("ladder: ") and refused.stderr.count("\n") == 1
    assert said in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_broken_manifest_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"evolution_request": {"child_gen": "Luna-G001", "trainig_method": "x"}}')
    refused = ladder("evolve", "m.json", cwd=tmp_path)
    assert refused.returncode == 2
    assert "training_method" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json"]


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sidecars of a generation that ``ladder show`` finds."""
    sidecars = tmp_path / "stored" / "ladder"
    sidecars.mkdir(parents=True)
    for name in ("report.html", "gates.png", "training.png"):
        (sidecars / name).write_bytes(name.encode())
    found = SimpleNamespace(find=lambda ref: generation(1, {}), sidecars=lambda _: sidecars)
    monkeypatch.setattr("ladder.commands.look.registry_of", lambda home: found)
    return sidecars


def show(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ladder", "show", "Luna-G001", *arguments])
    try:
        return cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)


def test_show_writes_the_pictures_and_says_where(
    examined: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert show(monkeypatch, "--png", str(out)) == 0
    assert capsys.readouterr().out.split() == [str(out / "gates.png"), str(out / "training.png")]
    assert sorted((path.name, path.read_bytes()) for path in out.iterdir()) == [
        ("gates.png", b"gates.png"),
        ("training.png", b"training.png"),
    ]
    assert show(monkeypatch, "--png", str(out), "--json") == 0
    pictures = [str(out / "gates.png"), str(out / "training.png")]
    assert result_of(capsys.readouterr().out, "show")["pictures"] == pictures


def test_show_says_what_teachers_were_worth(
    examined: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = generation(2, {"gate.recall": 0.5})
    monkeypatch.setattr(
        "ladder.commands.look.registry_of",
        lambda home: SimpleNamespace(find=lambda _: known, sidecars=lambda _: examined),
    )
    assert show(monkeypatch) == 0 and "throttle" not in capsys.readouterr().out
    (examined / "report.json").write_text(json.dumps({"training": {"receipts": worth()}}))
    assert show(monkeypatch) == 0
    printed = capsys.readouterr().out
    assert (
        printed.index("docs/<b>.jsonl          3   50.0%    0.25")
        < printed.index("below 0 it helps")
        < printed.index("gate.recall")
    )
    assert show(monkeypatch, "--json") == 0
    assert result_of(capsys.readouterr().out, "show")["receipts"]["parent"]["teacher"] == 1
    (examined / "teachers.png").write_bytes(b"t")
    assert show(monkeypatch, "--png", str(tmp_path / "out")) == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["gates.png", "teachers.png", "training.png"]


@pytest.mark.parametrize("missing", ["report.html", "training.png"])
def test_show_refuses_what_a_generation_has_not(
    examined: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    (examined / missing).unlink()
    out = tmp_path / "out"
    assert show(monkeypatch, *(["--html"] if missing == "report.html" else ["--png", str(out)])) == 2
    said = capsys.readouterr()
    assert f"Luna-G001 has no {missing} (only generations that were examined here" in said.err
    assert said.out == "" and not out.exists()


def test_a_file_is_no_folder_for_pictures(
    examined: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert show(monkeypatch, "--png", str(tmp_path / "out")) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_the_version_is_said(here: Callable[..., Any]) -> None:
    from ladder import __version__

    for option in ("--version", "-V"):
        told = here(option)
        assert (told.returncode, told.stdout) == (0, f"ladder {__version__}\n")
