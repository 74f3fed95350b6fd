"""A folder is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from ladder.errors import RunError
from ladder.system.files import save_folder, save_text


def writes(**files: str) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        for name, text in files.items():
            (target / name).write_text(text)

    return write


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    assert save_folder(folder, writes(a="1", b="2")) == folder
    save_folder(folder, writes(a="3"))
    assert content(folder) == {"a": "3"} and list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError("disk full"), RunError),
        (SafetensorError("I/O error: No space left on device"), RunError),
        (shutil.Error([("a", "b", "disk full")]), RunError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_write_that_fails_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, failure: BaseException, told: type[BaseException], before: bool
) -> None:
    folder = tmp_path / "model"
    if before:
        save_folder(folder, writes(a="1", b="2"))

    def fail(target: Path) -> None:
        (target / "a").write_text("half")
        raise failure

    with pytest.raises(told) as caught:
        save_folder(folder, fail)
    if told is RunError:
        said = r".*model: cannot be written: (I/O error: No space left.*|disk full) \(make room.*"
        assert re.fullmatch(said, str(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if before else [])
    assert not before or content(folder) == {"a": "1", "b": "2"}


def test_while_it_is_written_the_old_folder_is_whole_and_the_new_one_invisible(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000002"
    save_folder(folder, writes(a="1"))

    def write(target: Path) -> None:
        (target / "a").write_text("2")
        assert content(folder) == {"a": "1"}
        assert list(tmp_path.glob("step-*")) == [folder]

    save_folder(folder, write)


def test_the_old_folder_leaves_its_name_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting is slow and can be cut off; a reader must not find the half that is left."""
    folder = tmp_path / "model"
    save_folder(folder, writes(a="1", b="2"))
    seen: list[object] = []
    delete = shutil.rmtree

    def watch(path: Path, **options: bool) -> None:
        if path.exists():
            seen.append(content(folder))
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watch)
    save_folder(folder, writes(a="3", b="4"))
    assert seen == [{"a": "3", "b": "4"}]


def test_everything_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])

    def write(target: Path) -> None:
        (target / "inner").mkdir()
        (target / "inner" / "a").write_text("1")

    save_folder(tmp_path / "model", write)
    temporary = str(tmp_path / f".model.{os.getpid()}.tmp")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert set(before) == {temporary, f"{temporary}/inner", f"{temporary}/inner/a"} and after == [str(tmp_path)]
    events.clear()
    save_text(tmp_path / "notes.json", "{}")
    assert events == [str(tmp_path / f".notes.json.{os.getpid()}.tmp"), "rename", str(tmp_path)]


def test_text_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "notes.json"
    save_text(path, "Ünal\n")
    save_text(path, "🌙\n")
    assert path.read_bytes() == "🌙\n".encode() and list(path.parent.iterdir()) == [path]
