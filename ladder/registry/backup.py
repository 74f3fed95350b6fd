"""A copy of all that a home's registry holds as one archive, and that archive back to a home, proved before it takes
its place."""

from __future__ import annotations

import glob
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ladder import __version__
from ladder.errors import NotFound, RegistryError, UsageError
from ladder.registry import versions
from ladder.registry.archive import ARTIFACTS, DATABASE, Contents, Holding, entry_of, extract, write_archive
from ladder.registry.artifacts import local_path
from ladder.registry.head import standstill
from ladder.registry.locks import file_lock
from ladder.registry.store import Store, follow_move, open_store, strays, translated
from ladder.registry.verify import verify
from ladder.system.files import sync

_SHOWN = 5


def backup(store: Store, archive: Path) -> Contents:
    """Write the database and all its artifacts to ``archive``, whole or not at all.

    Meanwhile no family of the home evolves or moves its HEAD. Runs that were cut off and caches are not in it.

    Raises:
        UsageError: the archive exists, or its folder does not.
        NotFound: the store holds no family.
        Busy: a family evolves.
        RegistryError: the store is not a home's own, a family is damaged, or an artifact lies outside the home.
    """
    _check_target(archive)
    _check_own(store)
    with standstill(store) as families:
        if not families:
            raise NotFound("the store holds no family to back up", where=store.address)
        if found := damage(store, families):
            raise RegistryError(
                f"not what was recorded: {found}",
                where=store.address,
                remedy="repair it first; `ladder verify FAMILY` lists everything",
            )
        return _write(store, archive, families)


def holdings(store: Store, families: Sequence[str]) -> list[Holding]:
    """What an archive says of its families."""
    heads = {family: versions.head(store, family) for family in families}
    return [
        Holding(family=family, head=head.ref if head else None, generations=len(versions.generations(store, family)))
        for family, head in heads.items()
    ]


def damage(store: Store, families: Sequence[str]) -> str:
    """The first findings of ``verify`` in one line; empty where all is well."""
    found = [f"{finding.ref}: {finding.problem}" for family in families for finding in verify(store, family)]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "; ".join(found[:_SHOWN] + more)


def artifact_files(database: Path, root: Path) -> dict[str, Path]:
    """Every file that a database's logged models and runs refer to, by its path in an archive.

    Args:
        root: where the home of this database keeps artifacts.

    Raises:
        RegistryError: the database refers to an artifact that lies elsewhere.
    """
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT artifact_location FROM logged_models UNION SELECT artifact_uri FROM runs")
        folders = sorted(_own_folder(location, root) for (location,) in rows)
    files = (path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file())
    return {f"{ARTIFACTS}/{path.relative_to(root).as_posix()}": path for path in files}


def _check_target(archive: Path) -> None:
    if archive.exists():
        raise UsageError("exists already", where=str(archive), remedy="name a file that does not exist")
    if not archive.absolute().parent.is_dir():
        raise UsageError("is no folder", where=str(archive.absolute().parent), remedy="create it first")


def _check_own(store: Store) -> None:
    own = f"sqlite:///{store.home / DATABASE}"
    if store.uri != own:
        raise RegistryError(
            f"the store is not this home's own, {own}",
            where=store.address,
            remedy="back it up with the tools of its database or server, together with its artifact folder",
        )


def _write(store: Store, archive: Path, families: Sequence[str]) -> Contents:
    _clear(archive)
    temporary, snapshot = (archive.with_name(f".{archive.name}.{os.getpid()}.{end}.tmp") for end in ("tar", "db"))
    try:
        _copy_database(store.home / DATABASE, snapshot)
        sources = {DATABASE: snapshot} | artifact_files(snapshot, store.home / ARTIFACTS)
        contents = Contents(
            ladder=__version__,
            created=datetime.now(UTC),
            families=holdings(store, families),
            files={path: entry_of(source) for path, source in sources.items()},
        )
        write_archive(temporary, contents, sources)
        temporary.rename(archive)
        sync(archive.absolute().parent)
    finally:
        _clear(archive)
    return contents


def _clear(archive: Path) -> None:
    """Remove what this backup, or one that was killed, wrote beside its target."""
    for left_behind in archive.parent.glob(f".{glob.escape(archive.name)}.*.tmp*"):
        left_behind.unlink()


def _copy_database(database: Path, target: Path) -> None:
    """A consistent copy, also while MLflow's own pages write to the database."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def _own_folder(location: str, root: Path) -> Path:
    """An artifact location, relative to the home's artifacts."""
    folder = local_path(location)
    if folder is None or not folder.resolve().is_relative_to(root.resolve()):
        raise RegistryError(
            "an artifact lies outside the home",
            where=location,
            remedy="back the store up with the tools of its database, together with this folder",
        )
    return folder.resolve().relative_to(root.resolve())


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
