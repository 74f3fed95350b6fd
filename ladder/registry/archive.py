"""A store as one file: a plain tar whose first member lists every other one with its size and SHA-256.

Weights do not compress, so nothing is compressed. Unpacked by hand into an empty folder, an archive is a home.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ladder.errors import RegistryError

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
