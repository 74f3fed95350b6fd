"""Which home a command is about, wherever it is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ladder.errors import UsageError
from ladder.system.home import MARKER, find_home, write_marker


def home(folder: Path) -> Path:
    """A home that was used."""
    (folder / "locks").mkdir(parents=True)
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A project with a manifest in a folder of its own, and no home yet."""
    (tmp_path / "mine" / "more").mkdir(parents=True)
    (tmp_path / "mine" / "001.json").touch()
    (tmp_path / "mine" / "more" / "002.json").touch()
    return tmp_path / "mine"


def test_what_was_always_the_home_still_is(tmp_path: Path) -> None:
    assert find_home(None, [], tmp_path).folder == Path(".ladder")
    home(tmp_path / ".ladder")
    assert find_home(None, [], tmp_path).folder == Path(".ladder")
    assert find_home(Path("elsewhere"), [], tmp_path).folder == Path("elsewhere"), "new homes are where they are given"


@pytest.mark.parametrize("marked", [True, False])
def test_a_project_is_found_from_beside_it_within_it_and_by_its_manifests(mine: Path, marked: bool) -> None:
    if marked:
        write_marker(mine)
    else:
        home(mine / ".ladder")
    beside = mine.parent
    for manifests in (["mine"], ["mine/001.json"], ["mine/more/002.json", "mine/001.json"]):
        assert find_home(None, [Path(path) for path in manifests], beside).folder == Path("mine/.ladder")
    assert find_home(None, [], mine / "more").folder == mine / ".ladder"
    assert find_home(None, [Path("../more/002.json")], mine / "more").folder == mine / ".ladder"
    assert find_home(None, [Path("001.json")], mine).folder == Path(".ladder")


def test_a_home_that_manifests_from_elsewhere_are_run_in_is_found(tmp_path: Path, mine: Path) -> None:
    used = home(tmp_path / "work" / ".ladder").parent
    assert find_home(None, [mine / "001.json"], used).folder == Path(".ladder")
    assert find_home(None, [mine / "001.json"], used).note == ""


def test_an_older_home_above_a_project_stays_its_home(tmp_path: Path, mine: Path) -> None:
    home(tmp_path / ".ladder")
    assert find_home(None, [Path("mine/001.json")], tmp_path).folder == Path(".ladder")
    assert find_home(None, [Path("001.json")], mine).folder == tmp_path / ".ladder"


def test_what_a_plan_left_is_no_home(tmp_path: Path, mine: Path) -> None:
    (tmp_path / ".ladder" / "cache").mkdir(parents=True)
    write_marker(mine)
    found = find_home(None, [Path("mine")], tmp_path)
    assert (found.folder, found.note) == (Path("mine/.ladder"), "")


def test_a_given_home_may_be_named_by_its_project(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    assert find_home(Path("mine"), [], mine.parent).folder == Path("mine")
    write_marker(mine)
    assert find_home(Path("mine"), [], mine.parent).folder == Path("mine/.ladder")
    (mine / MARKER).write_text("../homes/mine\n")
    assert find_home(Path("mine"), [], mine.parent).folder == Path("mine/../homes/mine")
    assert find_home(None, [Path("mine")], mine.parent).folder == Path("homes/mine")
    home(mine / "other")
    assert find_home(Path("mine/other"), [], mine.parent).folder == Path("mine/other")
    # A home whose folder was a project, too: what it was, it stays.
    home(mine)
    assert find_home(Path("mine"), [], mine.parent).folder == Path("mine")


def test_two_homes_are_said(tmp_path: Path, mine: Path) -> None:
    home(tmp_path / ".ladder")
    home(mine / ".ladder")
    found = find_home(None, [Path("mine/001.json")], tmp_path)
    assert found.folder == Path("mine/.ladder")
    assert found.note == f"the home is mine/.ladder, to which mine/001.json belongs, and not {tmp_path / '.ladder'}"
    home(tmp_path / "yours" / ".ladder")
    (tmp_path / "yours" / "001.json").touch()
    with pytest.raises(UsageError, match=r"001.json belongs to the home .*mine/.ladder, and .*yours.*--home"):
        find_home(None, [Path("mine/001.json"), Path("yours/001.json")], tmp_path)
    assert find_home(Path("mine"), [Path("yours/001.json")], mine.parent).folder == Path("mine")


def test_a_reading_command_looks_one_folder_down_where_there_is_one_home(mine: Path) -> None:
    home(mine / ".ladder")
    found = find_home(None, [], mine.parent, below=True)
    assert (found.folder, found.note.endswith("mine/.ladder is the only one below")) == (Path("mine/.ladder"), True)
    assert find_home(None, [], mine.parent).folder == Path(".ladder"), "what makes a home makes it here"
    home(mine.parent / "yours" / ".ladder")
    assert find_home(None, [], mine.parent, below=True).folder == Path(".ladder")


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\x1b[2J\n", b"\xff\xfe"])
def test_a_marker_that_says_nothing_is_refused(mine: Path, content: bytes) -> None:
    (mine / MARKER).write_bytes(content)
    with pytest.raises(UsageError, match=f"{MARKER}: found no line with a path"):
        find_home(None, [], mine)


def test_folders_that_may_not_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    assert os.listdir(tmp_path) == ["shut"]
    assert find_home(None, [], tmp_path, below=True).folder == Path(".ladder")


def test_nobody_leaves_a_home_above_others_in_a_shared_folder(tmp_path: Path) -> None:
    home(tmp_path / ".ladder")
    (tmp_path / "own").mkdir()
    assert find_home(None, [], tmp_path / "own").folder == tmp_path / ".ladder"
    tmp_path.chmod(0o1777)
    assert find_home(None, [], tmp_path / "own").folder == Path(".ladder")
    assert find_home(None, [], tmp_path).folder == Path(".ladder"), "one's own folder is looked into"
