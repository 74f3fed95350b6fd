"""An archive back to a home, proved before it takes its place."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ladder.errors import RegistryError, UsageError
from ladder.models.save import sync
from ladder.registry.archive import ARTIFACTS, DATABASE, Contents, Holding, extract
from ladder.registry.backup import artifact_files, damage, holdings
from ladder.registry.environment import translated
from ladder.registry.locks import file_lock
from ladder.registry.relocate import follow_move, strays
from ladder.registry.standstill import standstill
from ladder.registry.store import open_store


@translated
def restore(archive: Path, home: Path) -> Contents:
    """Unpack a backup into a home that does not exist or holds no store yet, and verify its families.

    The store appears whole, by one rename, after everything in it was proved. Nothing is left of what is refused.

    Raises:
        UsageError: there is no archive, or the home holds a store.
        RegistryError: the archive was cut off or changed, or holds something else than it says.
        Busy: another process restores into this home.
    """
    home = home.absolute()
    _check(archive, home)
    with _leaving_nothing(home), file_lock(home / "locks" / "restore.lock", "restoring this home", timeout=0.0):
        for left_behind in home.glob(".store.*.tmp"):
            shutil.rmtree(left_behind)
        # MLflow keeps one connection pool per URI, so the path must be new.
        temporary = home / f".store.{uuid.uuid4().hex}.tmp"
        try:
            contents = extract(archive, temporary)
            if found := _disagreement(contents, temporary, home):
                raise RegistryError(found, where=str(archive), remedy="the archive was changed; take another one")
            _place(temporary, home / "store")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        follow_move(home / DATABASE, home / ARTIFACTS)
    return contents


def _check(archive: Path, home: Path) -> None:
    if not archive.is_file():
        raise UsageError("no such file", where=str(archive), remedy="name an archive that `ladder backup` wrote")
    store = home / "store"
    if store.exists() and any(store.iterdir()):
        raise UsageError(
            "the home holds a store already", where=str(store), remedy="give --home a folder that does not exist"
        )


@contextmanager
def _leaving_nothing(home: Path) -> Iterator[None]:
    """Where the block fails, remove the folders that it created on the way to the home."""
    created = [folder for folder in (home / "locks", home, *home.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        if home / "locks" in created:
            shutil.rmtree(home / "locks", ignore_errors=True)
        with suppress(OSError):  # Somebody else put something there meanwhile.
            for folder in created[1:]:
                folder.rmdir()
        raise


def _disagreement(contents: Contents, unpacked: Path, home: Path) -> str:
    """Verify the unpacked families where they lie; what is wrong, or differs from what the archive says of them."""
    database, artifacts = unpacked / "ladder.db", unpacked / "artifacts"
    try:
        follow_move(database, artifacts)
        if leading_out := strays(database, artifacts):
            return f"its database leads out of the home: {leading_out[0]} ({len(leading_out)} in all)"
    except sqlite3.Error as error:
        return f"its database cannot be read: {error}"
    if strange := contents.files.keys() ^ {DATABASE, *artifact_files(database, artifacts)}:
        return f"{min(strange)} is not among what its database refers to, or is missing"
    store = open_store(home, f"sqlite:///{database}")
    with standstill(store) as families:
        if found := damage(store, families):
            return f"it holds something else than was recorded: {found}"
        held = holdings(store, families)
    same = held == contents.families
    return "" if same else f"it holds {_text(held)}, but its list says {_text(contents.families)}"


def _place(unpacked: Path, store: Path) -> None:
    for path in [*unpacked.rglob("*"), unpacked]:
        sync(path)
    # Fails where a store appeared meanwhile: a folder with something in it is never replaced.
    unpacked.rename(store)
    sync(store.parent)


def _text(families: list[Holding]) -> str:
    return ", ".join(f"{each.family} with HEAD {each.head} and {each.generations} generations" for each in families)
