"""Only a whole, unchanged backup becomes a home; of anything else nothing is left."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import Busy, RegistryError, UsageError
from ladder.registry import Registry, backup, open_registry
from ladder.registry.artifacts import files_of
from ladder.registry.backup import LIST
from ladder.registry.locks import file_lock

pytestmark = pytest.mark.usefixtures("fast_models")
DATABASE = "store/ladder.db"


@pytest.fixture(scope="module")
def good(promoted_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three promoted generations. Read only."""
    folder = tmp_path_factory.mktemp("archives")
    open_registry(Path(shutil.copytree(promoted_home, folder / "home"))).backup(folder / "good.tar")
    return folder / "good.tar"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that does not exist, in a folder that does not either."""
    return tmp_path / "deep" / "home"


class Pages(dict[str, bytes]):
    """Members of an archive by name, and what else is appended to it."""

    further: list[tuple[tarfile.TarInfo, bytes]]

    def listed(self, change: Callable[[dict[str, Any]], object]) -> None:
        told = json.loads(self[LIST])
        change(told)
        self[LIST] = json.dumps(told).encode()

    def append(self, name: str, content: bytes = b"", **fields: Any) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        for field, value in fields.items():
            setattr(member, field, value)
        self.further.append((member, content))


def rewritten(good: Path, target: Path, change: Callable[[Pages], object]) -> Path:
    """A copy of an archive with changed members."""
    with tarfile.open(good, "r:") as tar:
        pages = Pages({member.name: tar.extractfile(member).read() for member in tar})
    pages.further = []
    change(pages)
    with tarfile.open(target, "w") as tar:
        for name, content in pages.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member, content in pages.further:
            tar.addfile(member, io.BytesIO(content))
    return target


def weights_of(pages: Pages) -> str:
    return next(name for name in pages if name.endswith("model.safetensors"))


def flip(pages: Pages) -> None:
    name = weights_of(pages)
    pages[name] = pages[name][:-1] + bytes([pages[name][-1] ^ 1])


def cut(pages: Pages) -> None:
    pages[weights_of(pages)] = pages[weights_of(pages)][:-1]


def swap(pages: Pages, **fields: Any) -> None:
    """Something of another kind under the name of the weights."""
    name = weights_of(pages)
    content = pages.pop(name)
    pages.append(name, **({"content": content} if "type" not in fields else {}) | fields)


def rename(pages: Pages, name: str) -> None:
    """The weights get another name, in the list as well."""
    old = weights_of(pages)
    pages.listed(lambda told: told["files"].update({name: told["files"].pop(old)}))
    pages[name] = pages.pop(old)


def sneak(pages: Pages, name: str) -> None:
    """A file that the list names and the database does not."""
    pages[name] = b""
    entry = {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    pages.listed(lambda told: told["files"].update({name: entry}))


def drop(pages: Pages) -> None:
    """A file is gone from archive and list."""
    name = weights_of(pages)
    del pages[name]
    pages.listed(lambda told: told["files"].pop(name))


def forge(pages: Pages, *statements: str) -> None:
    """Change the database, and the list with it: a forger leaves no wrong digest."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "ladder.db"
        database.write_bytes(pages[DATABASE])
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        relist(pages, database.read_bytes())


def relist(pages: Pages, content: bytes) -> None:
    """Another database, rightly listed."""
    pages[DATABASE] = content
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    pages.listed(lambda told: told["files"].update({DATABASE: entry}))


def test_a_database_that_leads_out_of_the_home_is_refused(good, home, tmp_path):
    """All the ways are in ``test_relocate.py``."""
    statement = "UPDATE experiments SET artifact_location = '/tmp/evil' WHERE name = 'Luna'"
    bad = rewritten(good, tmp_path / "bad.tar", lambda pages: forge(pages, statement))
    with pytest.raises(RegistryError, match=r"leads out of the home: experiments\.artifact_location '/tmp/evil'"):
        backup.restore(bad, home)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_a_family_whose_name_leads_out_of_the_home_is_none(good, home, tmp_path):
    name = "'../../evil'"
    model = f"INSERT INTO registered_models (name, workspace) VALUES ({name}, 'default')"
    columns = "key, value, name, workspace"
    tag = f"INSERT INTO registered_model_tags ({columns}) VALUES ('ladder.family', '1', {name}, 'default')"
    backup.restore(rewritten(good, tmp_path / "bad.tar", lambda pages: forge(pages, model, tag)), home)
    assert open_registry(home).families() == ["Luna"]
    assert not any("evil" in path.name for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00" + b"x" * 5000])
def test_a_database_that_is_none_is_refused(good, home, tmp_path, content):
    bad = rewritten(good, tmp_path / "bad.tar", lambda pages: relist(pages, content))
    with pytest.raises(RegistryError, match="its database cannot be read"):
        backup.restore(bad, home)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


HOSTILE: dict[str, tuple[Callable[[Pages], object], str]] = {
    "a changed byte": (flip, r"model\.safetensors has .* with digest"),
    "a missing byte": (cut, r"model\.safetensors is no plain file of"),
    "a missing member": (lambda pages: pages.pop(weights_of(pages)), r"model\.safetensors is missing"),
    "a stranger": (lambda pages: pages.append("store/artifacts/x"), "x is not in the list"),
    "a stranger above": (lambda pages: pages.append("../evil"), r"\.\./evil is not in the list"),
    "an absolute stranger": (lambda pages: pages.append("/tmp/evil"), "evil is not in the list"),
    "a folder": (lambda pages: pages.append("store/x", type=tarfile.DIRTYPE), "x is not in the list"),
    "a member twice": (lambda pages: pages.append(DATABASE, pages[DATABASE]), "stands there twice"),
    "a symbolic link": (lambda pages: swap(pages, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no plain file"),
    "a hard link": (lambda pages: swap(pages, type=tarfile.LNKTYPE, linkname=DATABASE), "is no plain file"),
    "a pipe": (lambda pages: swap(pages, type=tarfile.FIFOTYPE), "is no plain file"),
    "listed above": (lambda pages: rename(pages, "store/artifacts/../../evil"), "no place in a store"),
    "listed absolute": (lambda pages: rename(pages, "/tmp/evil"), "no place in a store"),
    "listed elsewhere": (lambda pages: rename(pages, "locks/evil"), "no place in a store"),
    "listed with a dot": (lambda pages: rename(pages, "store/artifacts/./evil"), "no place in a store"),
    "listed under another name": (lambda pages: rename(pages, "store/artifacts/x"), "store/artifacts/x is not among"),
    "listed below a file": (lambda pages: sneak(pages, f"{weights_of(pages)}/x"), "File exists|Not a directory"),
    "listed, not referred to": (lambda pages: sneak(pages, "store/artifacts/x.py"), r"x\.py is not among"),
    "referred to, not listed": (drop, "Luna-G00.: model/model.safetensors is missing|no model.safetensors"),
    "no list": (lambda pages: pages.pop(LIST), f"{LIST} is not its first member"),
    "a list that is none": (lambda pages: pages.update({LIST: b"[]"}), "is not a list"),
    "a later format": (lambda pages: pages.listed(lambda told: told.update(format=2)), "format: Input should be 1"),
    "a wrong HEAD": (
        lambda pages: pages.listed(lambda told: told["families"][0].update(head="Luna-G001")),
        "HEAD Luna-G002 .* says Luna with HEAD Luna-G001",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_changed_archive_is_refused_and_leaves_nothing(good, home, tmp_path, kind):
    change, said = HOSTILE[kind]
    bad = rewritten(good, tmp_path / "bad.tar", change)
    with pytest.raises(RegistryError, match=said):
        backup.restore(bad, home)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_a_rewritten_archive_that_was_not_changed_is_restored(good, home, tmp_path):
    """Otherwise the test above would show nothing."""
    backup.restore(rewritten(good, tmp_path / "same.tar", lambda pages: None), home)
    assert open_registry(home, create=False).head("Luna").ref == "Luna-G002"


def test_a_home_may_be_named_by_a_way_up_or_by_a_link(good, home, tmp_path, monkeypatch):
    """MLflow writes the paths of its store without either."""
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to("deep", target_is_directory=True)
    home.parent.mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert backup.restore(good, Path("../copy")).families == backup.restore(good, tmp_path / "link" / "home").families
    assert (tmp_path / "copy" / DATABASE).is_file() and (home / DATABASE).is_file()


def test_an_archive_that_was_cut_off_is_refused(good, home, tmp_path):
    content, cutoff = good.read_bytes(), tmp_path / "cut.tar"
    sizes = [0, 1, 511, 512, 700, 5000, len(content) // 3, len(content) // 2, len(content) * 9 // 10]
    for size in sizes:
        cutoff.write_bytes(content[:size])
        with pytest.raises(RegistryError, match=f"{LIST}|store/"):
            backup.restore(cutoff, home)
        assert list(tmp_path.iterdir()) == [cutoff], size


def test_a_flipped_bit_is_found_or_changes_nothing(good, home, tmp_path):
    chance, content = random.Random(0), good.read_bytes()
    with tarfile.open(good, "r:") as tar:
        headers = [member.offset for member in tar]
    places = [chance.randrange(len(content)) for _ in range(20)]
    places += [chance.choice(headers) + chance.randrange(512) for _ in range(40)]
    expected, refused = None, 0
    for at in places:
        (tmp_path / "flipped.tar").write_bytes(
            content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        )
        try:
            backup.restore(tmp_path / "flipped.tar", home)
        except RegistryError:
            refused += 1
        else:
            expected = expected or files_of(home / "store" / "artifacts")
            assert files_of(home / "store" / "artifacts") == expected, at
            shutil.rmtree(home.parent)
        assert [path.name for path in tmp_path.iterdir()] == ["flipped.tar"], at
    assert refused >= 50


@pytest.mark.parametrize("content", [b"", b"not an archive" * 100, b"gzip"])
def test_what_is_no_archive(good, home, tmp_path, content):
    other = tmp_path / "other.tar"
    other.write_bytes(gzip.compress(good.read_bytes()) if content == b"gzip" else content)
    with pytest.raises(RegistryError, match=LIST):
        backup.restore(other, home)
    with pytest.raises(UsageError, match="no such file"):
        backup.restore(tmp_path / "absent.tar", home)
    assert list(tmp_path.iterdir()) == [other]


def test_a_home_with_a_store_stays_as_it_is(good, luna: Registry):
    before = files_of(luna.home)
    with pytest.raises(UsageError, match="holds a store already"):
        backup.restore(good, luna.home)
    assert files_of(luna.home) == before


def test_a_home_without_a_store_keeps_what_it_has(good, home):
    (home / "cache" / "tokens").mkdir(parents=True)
    (home / "cache" / "tokens" / "a").write_text("kept")
    (home / "store").mkdir()
    backup.restore(good, home)
    assert (home / "cache" / "tokens" / "a").read_text() == "kept"
    assert open_registry(home, create=False).verify("Luna") == []


def test_a_store_that_appears_meanwhile_is_not_replaced(good, home, monkeypatch):
    real = backup._place

    def place(*arguments: Any) -> None:
        (home / "store").mkdir()
        (home / "store" / "ladder.db").write_text("somebody else's")
        real(*arguments)

    monkeypatch.setattr(backup, "_place", place)
    with pytest.raises(RegistryError):
        backup.restore(good, home)
    assert [path.name for path in home.iterdir()] == ["store"]
    assert (home / "store" / "ladder.db").read_text() == "somebody else's"


def test_one_restore_at_a_time(good, home):
    with file_lock(home / "locks" / "restore.lock", "another", timeout=0), pytest.raises(Busy, match="restoring"):
        backup.restore(good, home)


def test_a_full_disk_leaves_nothing(good, home, tmp_path, monkeypatch):
    real = backup.sync

    def full(path: Path) -> None:
        if path.name == "model":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "sync", full)
        with pytest.raises(RegistryError, match="No space left on device"):
            backup.restore(good, home)
    assert list(tmp_path.iterdir()) == []
    backup.restore(good, home)


@pytest.mark.parametrize("step", ["extract", "_disagreement", "_place"])
def test_killed_restore(good, home, fork, monkeypatch, step):
    real = getattr(backup, step)

    def die(*arguments: Any) -> None:
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(backup, step, die)
        assert fork(lambda: backup.restore(good, home)) == [-signal.SIGKILL], "the step was not reached"
    if step == "_place":
        assert open_registry(home).verify("Luna") == [], "whole already"
    else:
        assert not (home / "store").exists()
        backup.restore(good, home)
    assert sorted(path.name for path in home.iterdir()) == ["locks", "store"]
    again = open_registry(home)
    assert again.verify("Luna") == [] and again.rollback("Luna", reason="restored").ref == "Luna-G001"
    with pytest.raises(UsageError, match="holds a store already"):
        backup.restore(good, home)
