"""The home that a verb works in, as it is said."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladder import cli
from ladder.system.home import MARKER
from tests.answers import check_document, result_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``here(verb, ...)``: exit code, what was printed, and what was said beside it, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["ladder", *arguments])
        try:
            code = cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def test_a_project_has_one_home_from_wherever_it_is_asked_for(
    here: Callable[..., Any], empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("init", "mine")[0] == 0 and Path("mine", MARKER).read_text() == ".ladder\n"
    home = tmp_path / "mine" / ".ladder"
    missing = f"its parent Mine-G000 does not exist in the home {home}, which holds nothing yet"
    assert missing in here("plan", "mine/001-child.json")[1]
    shutil.copytree(empty_home, home)
    for options in ([], ["--home", "mine"], ["--home", "mine/.ladder"]):
        result = result_of(here("families", "--json", *options)[1], "families")
        assert (Path(result["home"]).resolve(), result["families"]) == (home, [])
    monkeypatch.setenv("LADDER_HOME", "mine")
    assert here("families")[1].startswith(f"home {home} holds no family yet")
    monkeypatch.delenv("LADDER_HOME")
    monkeypatch.chdir("mine/data")
    assert here("families")[1].startswith(f"home {home} holds no family yet")
    assert missing in here("plan", "../001-child.json")[1]


@pytest.mark.parametrize("verb", ["branches", "lineage", "prune", "runs", "verify", "watch"])
def test_a_family_that_is_not_there_is_no_family_of_which_nothing_is_said(
    verb: str, here: Callable[..., Any], empty_home: Path
) -> None:
    for home in ("nowhere", str(empty_home)):
        code, out, said = here(verb, "Brindel", "--home", home)
        assert code == 2 and not out and ("Brindel" in said or "nowhere" in said)


def test_what_is_not_there_says_where_it_was_looked_for(
    here: Callable[..., Any], empty_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / ".ladder"
    code, _, said = here("show", "Luna@HEAD")
    assert code == 2 and str(home) in said
    shutil.copytree(empty_home, home)
    for command in ("show Luna@HEAD", "show Luna-G001", "lineage Luna", "verify Luna", "prune Luna", "rollback Luna"):
        code, _, said = here(*command.split())
        assert code == 2 and f"home {home}: no family Luna in this store (nothing is recorded yet" in said, command
        assert "--home" in said
    (error,) = check_document(here("lineage", "Luna", "--json")[1])["errors"]
    assert (error["where"], error["kind"]) == (f"home {home}", "NotFound")


def test_two_homes_are_a_note(here: Callable[..., Any], empty_home: Path) -> None:
    here("init", "mine")
    shutil.copytree(empty_home, ".ladder")
    code, printed, said = here("plan", "mine/000-genesis.json", "--json")
    assert code == 0 and "note: the home is mine/.ladder, to which mine/000-genesis.json belongs" in said
    assert [note.partition(",")[0] for note in check_document(printed)["notes"]] == ["the home is mine/.ladder"]
    assert "note" not in here("plan", "mine/000-genesis.json", "--home", ".ladder")[2]


def test_a_submission_takes_the_home_of_its_manifests(
    here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladder.verbs import submit

    here("init", "mine")
    sent: list[str] = []
    monkeypatch.setattr(submit, "_run", lambda address, line, *_, **__: sent.append(line) or submit.Sent("1", address))
    assert here("submit", "mine", "--address", "http://127.0.0.1:9", "--no-wait")[0] == 0
    assert f"--home {Path('mine/.ladder').resolve()} " in sent[0]
