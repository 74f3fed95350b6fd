"""A copy of all that a home's registry holds as one archive, and that archive back to a home, proved before it takes
its place.

An archive is a plain tar whose first member lists every other one with its size and SHA-256.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ladder import __version__
from ladder.errors import NotFound, RegistryError, UsageError
from ladder.registry import artifacts, head, locks, verify, versions
from ladder.registry.entities import Store
from ladder.registry.store import follow_move, open_store, strays, translated
from ladder.system.files import sync

LIST = "ladder-backup.json"
DATABASE = "store/ladder.db"
ARTIFACTS = "store/artifacts"
_LONGEST_LIST = 256 * 2**20


def _checked_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    # Rebuilt from its parts it differs if it has "." or "//" in it.
    if "/".join(parts) != path or ".." in parts or not (path == DATABASE or path.startswith(f"{ARTIFACTS}/")):
        raise ValueError(f"{path!r} has no place in a store")
    return path


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(_Strict):
    """Expected size and SHA-256 of a member."""

    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Holding(_Strict):
    """One family of an archive."""

    family: str
    head: str | None
    """Reference of HEAD."""
    generations: int
    """How many attempts are recorded."""


class Contents(_Strict):
    """The first member of an archive."""

    format: Literal[1] = 1
    ladder: str
    """Version that wrote it."""
    created: datetime
    families: list[Holding]
    files: dict[Annotated[str, AfterValidator(_checked_path)], Entry]
    """By path in the archive, in its order."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def entry_of(path: Path) -> Entry:
    """Size and digest of a file."""
    with path.open("rb") as stream:
        return Entry(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size=stream.tell())


def write_archive(archive: Path, contents: Contents, sources: Mapping[str, Path]) -> None:
    """Write an archive durably.

    Args:
        sources: the file behind each path of ``contents.files``.

    Raises:
        RegistryError: a file is not what the list says any more.
    """
    text = contents.model_dump_json(indent=1).encode()
    with archive.open("xb") as stream:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            tar.addfile(_header(LIST, len(text)), io.BytesIO(text))
            for path, entry in contents.files.items():
                _add(tar, path, entry, sources[path])
        stream.flush()
        os.fsync(stream.fileno())


def extract(archive: Path, store: Path) -> Contents:
    """Unpack an archive's store to a folder that does not exist yet; the caller makes the files durable.

    Only what the list names is written, and what is written is what the list names.

    Raises:
        RegistryError: the archive has no readable list, or differs from it; the message names the member.
    """
    name = LIST
    try:
        with tarfile.open(archive, mode="r:") as tar:
            contents = _read_list(tar)
            missing = dict(contents.files)
            while member := tar.next():
                name = member.name
                _extract(tar, member, missing.pop(name, None), store)
            if missing:
                name = next(iter(missing))
                raise _Unlike(f"is missing, and {len(missing) - 1} more")
    except (tarfile.TarError, _Unlike, ValueError, OverflowError) as error:
        raise RegistryError(
            f"{name} {error}" if isinstance(error, _Unlike) else f"{name} cannot be read: {error}",
            where=str(archive),
            remedy="the archive was cut off or changed, or is none of ladder's; take another one",
        ) from error
    return contents


class _Unlike(Exception):
    """A member's size or digest is not the listed one."""


class _Hashed:
    """A stream that is read once, with the SHA-256 and size of what was read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self._sha256.update(chunk)
        self._size += len(chunk)
        return chunk

    def entry(self) -> Entry:
        return Entry(sha256=self._sha256.hexdigest(), size=self._size)


def _header(path: str, size: int) -> tarfile.TarInfo:
    """A plain file that everybody may read; owner and time of the original stay at home."""
    header = tarfile.TarInfo(path)
    header.size = size
    return header


def _add(tar: tarfile.TarFile, path: str, entry: Entry, source: Path) -> None:
    with source.open("rb") as stream:
        hashed = _Hashed(stream)
        tar.addfile(_header(path, entry.size), cast(IO[bytes], hashed))
    if hashed.entry() != entry:
        raise RegistryError(
            "changed while it was read", where=str(source), remedy="repeat the command when nobody writes there"
        )


def _read_list(tar: tarfile.TarFile) -> Contents:
    member = tar.next()
    if member is None or member.name != LIST or not _is_plain(member) or member.size > _LONGEST_LIST:
        raise _Unlike("is not its first member")
    try:
        return Contents.model_validate_json(_stream(tar, member).read())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _Unlike(f"is not a list that this version reads: {place}: {first['msg']}") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry | None, store: Path) -> None:
    if entry is None:
        raise _Unlike("is not in the list, or stands there twice")
    if not _is_plain(member) or member.size != entry.size:
        raise _Unlike(f"is no plain file of {entry.size} bytes, as the list says")
    path = store / PurePosixPath(member.name).relative_to("store")
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = _Hashed(_stream(tar, member))
    with path.open("xb") as target:
        shutil.copyfileobj(cast(IO[bytes], hashed), target)
    if (found := hashed.entry()) != entry:
        raise _Unlike(
            f"has {found.size} bytes with digest {found.sha256[:12]}, listed are {entry.size} with {entry.sha256[:12]}"
        )


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None, "it is a plain file"
    return stream


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
    with head.all_locked(store) as families:
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
        Holding(family=family, head=live.ref if live else None, generations=len(versions.generations(store, family)))
        for family, live in heads.items()
    ]


def damage(store: Store, families: Sequence[str]) -> str:
    """The first findings of ``verify`` in one line; empty where all is well."""
    found = [f"{finding.ref}: {finding.problem}" for family in families for finding in verify.verify(store, family)]
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
    folder = artifacts.local_path(location)
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
    home = home.resolve()  # MLflow writes paths without `..`, and they are compared with it.
    _check(archive, home)
    with _leaving_nothing(home), locks.file_lock(home / "locks" / "restore.lock", "restoring this home", timeout=0.0):
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
    with head.all_locked(store) as families:
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
