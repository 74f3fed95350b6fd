"""A backup holds everything, is whole or absent, and is not made of what is damaged or moving."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import Busy, LadderError, NotFound, RegistryError, UsageError
from ladder.registry import Generation, Registry, backup, family_lock, open_registry
from ladder.registry import backup as archive
from ladder.registry.artifacts import files_of, stored_folder
from ladder.registry.backup import LIST, Contents, restore

pytestmark = pytest.mark.usefixtures("fast_models")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file to write in a folder that is empty."""
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "luna.tar"


def stored(registry: Registry) -> dict[str, str]:
    """Digest of every file of the store, the database included, but locks."""
    found = files_of(registry.home / "store")
    return {path: digest for path, digest in found.items() if not path.endswith(".lock")}


def said(registry: Registry, family: str = "Luna") -> dict[str, object]:
    """Everything that the registry says of a family: generations, HEAD, history and what their runs logged."""
    generations = registry.generations(family)
    runs = [registry.store.client.get_run(each.run_id).data.to_dictionary() for each in generations]
    steps = [registry.step_metrics(each.run_id, "") for each in generations]
    return {
        "generations": generations,
        "head": registry.head(family),
        "history": registry.history(family),
        "runs": [{key: value for key, value in run.items() if key != "tags"} for run in runs],
        "steps": steps,
    }


def add_a_rejected_child(registry: Registry, make) -> Generation:
    head = registry.head("Luna")
    return registry.record(make("Luna-G003", 0.3, parent=head, passed=False, failed_gates=["recall"]))


def test_everything_comes_back_in_an_empty_home(luna: Registry, make, target, tmp_path):
    add_a_rejected_child(luna, make)
    terra = luna.record(make("Terra-G000", 0.7))
    luna.rollback("Luna", reason="a little worse")
    before = stored(luna)
    contents = luna.backup(target)
    assert [(each.family, each.head, each.generations) for each in contents.families] == [
        ("Luna", "Luna-G001", 4),
        ("Terra", None, 1),
    ]
    assert stored(luna) == before, "the home is as it was"
    home = tmp_path / "new" / "home"
    assert restore(target, home) == contents
    assert sorted(path.name for path in home.iterdir()) == ["locks", "store"]
    again = open_registry(home, create=False)
    for family in ("Luna", "Terra"):
        assert said(again, family) == said(luna, family)
        assert again.verify(family) == []
    assert {path: digest for path, digest in stored(again).items() if path != "ladder.db"} == {
        path: digest for path, digest in before.items() if path != "ladder.db"
    }
    with stored_folder(again.store, again.find("Luna@HEAD").model_id) as folder:
        assert folder.is_relative_to(home)
    shutil.move(luna.home, tmp_path / "far away")
    assert again.rollback("Luna", reason="restored").ref == "Luna-G000"
    assert again.promote(terra, expected=None, reason="restored").is_head
    assert again.materialize(again.head("Luna")).is_dir()


def test_the_first_thing_in_it_says_what_it_is(luna: Registry, target):
    contents = luna.backup(target)
    with tarfile.open(target, mode="r:") as tar:
        names = tar.getnames()
        text = tar.extractfile(names[0]).read()
    assert names == [LIST, *contents.files] and names[1] == "store/ladder.db"
    assert Contents.model_validate_json(text) == contents
    assert not any(name.endswith((".lock", ".tmp")) for name in names)


def test_unpacked_by_hand_it_is_a_home(luna: Registry, target, tmp_path):
    luna.backup(target)
    shutil.unpack_archive(target, tmp_path / "by hand", filter="data")
    by_hand = open_registry(tmp_path / "by hand", create=False)
    assert by_hand.verify("Luna") == [] and by_hand.head("Luna") == luna.head("Luna")


def test_a_pruned_family_comes_back_pruned(luna: Registry, make, target, tmp_path):
    add_a_rejected_child(luna, make)
    luna.prune("Luna")
    luna.backup(target)
    restore(target, tmp_path / "new")
    again = open_registry(tmp_path / "new")
    assert again.find("Luna-G003").pruned == luna.find("Luna-G003").pruned
    assert again.verify("Luna") == []


def test_what_was_cut_off_does_not_stand_in_the_way(luna: Registry, target, tmp_path):
    """A cut-off run is no damage: the same command resumes it, in the restored home from its beginning."""
    luna.start_run(replace(luna.head("Luna").name, index=3))
    for name in ("runs/Luna-G003/0123456789abcdef/run.json", "cache/tokens/a.json"):
        (luna.home / name).parent.mkdir(parents=True)
        (luna.home / name).write_text("{}")
    assert luna.verify("Luna") != []
    contents = luna.backup(target)
    assert all(path.startswith("store/") for path in contents.files)
    restore(target, tmp_path / "new")
    assert ["was cut off" in each.problem for each in open_registry(tmp_path / "new").verify("Luna")] == [True]


def test_the_verbs(luna: Registry, target, tmp_path):
    line = "Luna: 3 generations, HEAD Luna-G002\n"
    for arguments, said in (
        (["backup", str(target), "--home", str(luna.home)], f"{line}wrote {target}: "),
        (
            ["restore", str(target), "--home", str(tmp_path / "new")],
            f"{line}restored and verified in {tmp_path / 'new'}: ",
        ),
    ):
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0 and done.stdout.startswith(said)


def refused(registry: Registry, target: Path, error: type[LadderError], match: str) -> None:
    beside = sorted(target.parent.iterdir()) if target.parent.exists() else []
    with pytest.raises(error, match=match):
        registry.backup(target)
    assert not target.parent.exists() or sorted(target.parent.iterdir()) == beside


def test_a_target_that_is_taken_or_has_no_folder(luna: Registry, target):
    target.write_bytes(b"precious")
    refused(luna, target, UsageError, "exists already")
    assert target.read_bytes() == b"precious"
    refused(luna, target.parent / "none" / "luna.tar", UsageError, "no folder")


def test_a_store_that_is_not_the_homes_own(luna: Registry, target, tmp_path):
    other = open_registry(tmp_path / "other", luna.tracking_uri)
    refused(other, target, RegistryError, "not this home's own.*artifact folder")


def test_an_empty_store(registry: Registry, target):
    refused(registry, target, NotFound, "no family")


@pytest.mark.parametrize("lock", [("Luna", "evolve"), ("Luna", "head"), ("Terra", "evolve")])
def test_a_family_that_moves(luna: Registry, target, lock, monkeypatch):
    """Terra trains its first generation, so the store does not know it yet."""
    monkeypatch.setattr("ladder.registry.head.LOCK_SECONDS", 0.1)
    with family_lock(luna.home, *lock):
        refused(luna, target, Busy, f"{lock[0]} .{lock[1]}. is held by process {os.getpid()}")


def test_nobody_evolves_meanwhile(luna: Registry, target, monkeypatch):
    held, write = [], backup.write_archive

    def look(*arguments: object) -> None:
        for purpose in ("evolve", "head"):
            with pytest.raises(Busy) as caught, family_lock(luna.home, "Luna", purpose):
                pass
            held.append(caught.value)
        write(*arguments)

    monkeypatch.setattr(backup, "write_archive", look)
    luna.backup(target)
    assert len(held) == 2


def test_a_damaged_family(luna: Registry, target):
    with stored_folder(luna.store, luna.find("Luna-G001").model_id) as folder:
        (folder / "ladder" / "report.json").write_text("better")
    refused(luna, target, RegistryError, r"Luna-G001: ladder/report\.json was changed")


def test_an_artifact_outside_the_home(luna: Registry, target, tmp_path):
    head = luna.head("Luna")
    with stored_folder(luna.store, head.model_id) as folder:
        elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    with sqlite3.connect(luna.home / "store" / "ladder.db") as database:
        where = {"place": str(elsewhere), "model": head.model_id}
        database.execute("UPDATE logged_models SET artifact_location = :place WHERE model_id = :model", where)
    assert luna.verify("Luna") == []
    refused(luna, target, RegistryError, "outside the home")


def test_a_file_that_changes_while_it_is_read(luna: Registry, target, monkeypatch):
    real = backup.write_archive

    def write(temporary: Path, contents: Contents, sources: dict[str, Path]) -> None:
        *_, last = sources.values()
        last.write_bytes(b"x" * last.stat().st_size)
        real(temporary, contents, sources)

    monkeypatch.setattr(backup, "write_archive", write)
    refused(luna, target, RegistryError, "changed while it was read")


def test_a_full_disk(luna: Registry, target, monkeypatch):
    """The disk fills up in the middle of the archive."""
    real, count = archive._add, 0

    def add(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_add", add)
        refused(luna, target, RegistryError, "No space left on device")
    luna.backup(target)
    assert target.is_file()


@pytest.mark.parametrize("step", ["_copy_database", "artifact_files", "write_archive", "sync"])
def test_killed_backup(luna: Registry, target, fork, monkeypatch, step, tmp_path):
    before, real = said(luna), getattr(backup, step)

    def die(*arguments: object) -> None:
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    def command(home: Path = luna.home) -> object:
        return open_registry(home).backup(target)

    with monkeypatch.context() as patch:
        patch.setattr(backup, step, die)
        assert fork(command) == [-signal.SIGKILL], "the step was not reached"
    assert target.exists() == (step == "sync"), "whole or absent"
    target.unlink(missing_ok=True)
    command()
    assert list(target.parent.iterdir()) == [target], "nothing lies about"
    restore(target, tmp_path / "new")
    assert said(open_registry(tmp_path / "new")) == said(luna) == before
