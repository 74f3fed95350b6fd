"""A copy of everything that a home's registry holds, as one archive that proves itself when it is restored."""

from __future__ import annotations

import glob
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ladder import __version__
from ladder.errors import NotFound, RegistryError, UsageError
from ladder.models.save import sync
from ladder.registry import versions
from ladder.registry.archive import ARTIFACTS, DATABASE, Contents, Holding, entry_of, write_archive
from ladder.registry.artifacts import local_path
from ladder.registry.standstill import standstill
from ladder.registry.store import Store
from ladder.registry.verify import verify

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
