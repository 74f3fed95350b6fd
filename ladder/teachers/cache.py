"""What a frozen teacher said about an example is said once: in memory, or on disk where several processes share it.

Entries are never evicted, so which ones exist depends on the order of the batches alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ladder.concepts.steering import Steering
from ladder.errors import ModelError, RunError
from ladder.models import folder_digest, tokenizer_digest
from ladder.teachers.kinds import Material
from ladder.teachers.wire import Kind, Rows, Truncation


@dataclass(frozen=True)
class CacheStatistics:
    """Counts since the cache was opened by this process.

    Args:
        hits: examples that were there.
        misses: examples that were not, and that the teacher had to read.
        stored_bytes: bytes written by this process.
        refused: shards that were torn, damaged or foreign, and were removed.
        full: something was not stored because it would not have fitted.
    """

    hits: int = 0
    misses: int = 0
    stored_bytes: int = 0
    refused: int = 0
    full: bool = False

    def looked_up(self, wanted: int, found: int) -> CacheStatistics:
        return replace(self, hits=self.hits + found, misses=self.misses + wanted - found)

    def stored(self, size: int) -> CacheStatistics:
        return replace(self, stored_bytes=self.stored_bytes + size)


FORMAT = "1"
"""Version of the layout; another one is refused."""

Spans = dict[str, tuple[int, int]]
"""First row and row after the last, by digest of the example."""


def pack(key: str, entries: Mapping[str, Rows]) -> bytes:
    """The content of a shard with these entries."""
    names = next(iter(entries.values()))
    arrays = {name: np.concatenate([rows[name] for rows in entries.values()]) for name in names}
    ends = np.cumsum([len(next(iter(rows.values()))) for rows in entries.values()]).tolist()
    spans = dict(zip(entries, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    metadata = {"format": FORMAT, "key": key, "examples": json.dumps(spans)}
    return save(arrays, metadata | {"checksum": _checksum(metadata, arrays)})


def write_shard(folder: Path, content: bytes) -> Path:
    """Put a shard in place under a new name, by which shards sort in the order of their writing.

    It is not forced to the disk: what a power cut tears is refused by its checksum, and computed again.
    """
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    temporary, path = folder / f".{name}.tmp", folder / f"{name}.safetensors"
    try:
        temporary.write_bytes(content)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_spans(path: Path, key: str) -> Spans:
    """Which examples a shard holds, by its header alone.

    Raises:
        ModelError: it is torn, of another format, or was computed for another key.
        FileNotFoundError: another process took it away.
    """
    with _opened(path) as shard:
        return _spans(_metadata(shard), path, key)


def shards(folder: Path, key: str) -> Iterator[tuple[set[str], int]]:
    """Digests and bytes of each whole shard in a folder, by the headers alone; writes nothing."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            yield set(read_spans(path, key)), path.stat().st_size
        except (ModelError, FileNotFoundError):
            continue


def verify(path: Path, key: str) -> Spans:
    """Compare a whole shard with its checksum; returns which examples it holds.

    Raises:
        ModelError: as :func:`read_spans`, or some bit is not as it was written.
        FileNotFoundError: another process took it away.
    """
    with _opened(path) as shard:
        metadata = _metadata(shard)
        expected = metadata.pop("checksum", None)
        if expected != _checksum(metadata, {name: shard.get_tensor(name) for name in shard.keys()}):  # noqa: SIM118
            raise ModelError("a cached signal does not have its checksum", where=str(path))
        return _spans(metadata, path, key)


def read_rows(path: Path, span: tuple[int, int]) -> Rows:
    """The rows of one example; the file is mapped, and nothing else of it is read."""
    with _opened(path) as shard:
        return {name: shard.get_slice(name)[slice(*span)] for name in shard.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as shard:
            yield shard
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise ModelError(f"a cached signal cannot be read: {error}", where=str(path)) from error


def _metadata(shard: Any) -> dict[str, str]:
    return dict(shard.metadata() or {})


def _spans(metadata: Mapping[str, str], path: Path, key: str) -> Spans:
    if (metadata.get("format"), metadata.get("key")) != (FORMAT, key):
        raise ModelError("a cached signal of another format or for another key", where=str(path))
    spans: dict[str, list[int]] = json.loads(metadata["examples"])
    return {digest: (start, stop) for digest, (start, stop) in spans.items()}


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header's words and the arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


STALE = 3600.0
"""Seconds after which an unfinished file was left behind by a process that died."""


class DiskCache:
    """One key's shards.

    Args:
        folder: of this key alone.
        key: the full key, which every shard repeats.
        limit: bytes that the folder may take; whoever wrote them.
    """

    def __init__(self, folder: Path, key: str, limit: int) -> None:
        self.folder, self.key, self.limit = folder, key, limit
        self.statistics = CacheStatistics()
        self._sizes: dict[str, int] = {}
        self._verified: dict[Path, tuple[int, int]] = {}
        self._index: dict[str, tuple[Path, tuple[int, int]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._scan()

    def get(self, digests: Iterable[str]) -> dict[str, Rows]:
        """The entries that are there, also those that other processes have written since."""
        wanted = list(digests)
        if any(digest not in self._index for digest in wanted):
            self._scan()
        found = {digest: rows for digest in wanted if (rows := self._read(digest)) is not None}
        self.statistics = self.statistics.looked_up(len(wanted), len(found))
        return found

    def put(self, entries: Mapping[str, Rows]) -> None:
        """Write these entries as one shard, unless the folder would grow beyond its limit.

        Raises:
            RunError: the disk does not take it.
        """
        content = pack(self.key, entries)
        if sum(self._sizes.values()) + len(content) > self.limit:
            self.statistics = replace(self.statistics, full=True)
            return
        try:
            path = write_shard(self.folder, content)
        except OSError as error:
            raise RunError(
                f"a signal of {len(content):,} bytes could not be stored: {error}",
                where=str(self.folder),
                remedy="free disk space, or write runtime.signal_cache: memory or off",
            ) from error
        self._add(path)
        self.statistics = self.statistics.stored(len(content))

    def _scan(self) -> None:
        """Index the shards that are new, the oldest first: where two hold the same example, the older one counts."""
        for name in sorted(set(os.listdir(self.folder)) - self._sizes.keys()):
            if name.endswith(".safetensors"):
                self._add(self.folder / name)

    def _add(self, path: Path) -> None:
        try:
            spans, size = read_spans(path, self.key), path.stat().st_size
        except FileNotFoundError:
            return
        except ModelError:
            self._refuse(path)
            return
        self._sizes[path.name] = size
        for digest, span in spans.items():
            self._index.setdefault(digest, (path, span))

    def _read(self, digest: str) -> Rows | None:
        """One entry, out of a shard that is as it was written; None where there is none, or no longer."""
        if digest not in self._index:
            return None
        path, span = self._index[digest]
        try:
            self._verify(path, digest, span)
            return read_rows(path, span)
        except (ModelError, FileNotFoundError):
            self._refuse(path)
            return None

    def _verify(self, path: Path, digest: str, span: tuple[int, int]) -> None:
        """Compare with key and checksum, once for each state of the file."""
        status = path.stat()
        state = (status.st_mtime_ns, status.st_size)
        if self._verified.get(path) == state:
            return
        if verify(path, self.key).get(digest) != span:
            raise ModelError("a cached signal holds other examples than it did", where=str(path))
        self._verified[path] = state

    def _refuse(self, path: Path) -> None:
        """Take a bad shard out of the folder and out of the index."""
        if path.exists():  # Otherwise another process was faster.
            path.unlink(missing_ok=True)
            self.statistics = replace(self.statistics, refused=self.statistics.refused + 1)
        self._sizes.pop(path.name, None)
        self._verified.pop(path, None)
        self._index = {digest: place for digest, place in self._index.items() if place[0] != path}

    def _sweep(self) -> None:
        """Remove what dead processes left unfinished."""
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


@dataclass(frozen=True)
class CacheSettings:
    """Where signals are kept.

    Args:
        kind: in the memory of the teacher's process, or on disk for later runs as well.
        limit: bytes that one teacher's signals may take; what comes after that is not stored.
        folder: for ``disk``, the folder of all teachers' caches.
    """

    kind: Literal["memory", "disk"]
    limit: int
    folder: Path | None = None


class Key:
    """What a signal depends on besides the example: the fields of a dataclass."""

    @property
    def text(self) -> str:
        """The whole key in canonical form."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))  # type: ignore[call-overload]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CacheKey(Key):
    """Everything besides the example that a signal depends on.

    Args:
        teacher: digest of the teacher's folder, and of what steers it.
        tokenizer: digest of its tokenizer.
        dtype: in which the teacher computes.
    """

    teacher: str
    tokenizer: str
    wire: Kind
    dtype: str
    truncation: Truncation | None = None

    @classmethod
    def of(
        cls, folder: Path, wire: Kind, dtype: str, truncation: Truncation | None, steering: Steering | None = None
    ) -> CacheKey:
        """The key of the teacher in ``folder``, who is steered or not.

        Raises:
            ModelError: the folder cannot be digested.
        """
        speaker = folder_digest(folder)
        if steering is not None:
            speaker = f"{speaker} steered by {steering.digest()}"
        return cls(speaker, tokenizer_digest(folder), wire, dtype, truncation)


@dataclass(frozen=True)
class OtherKey(Key):
    """The same of a teacher that is no model.

    Args:
        kind: the manifest's word.
        says: the teacher's own ``digest``.
        files: SHA-256 of each.
        options: as JSON.
        template, controls, today, taboo_ids: as in ``Material``, by which its files are read as the student's rows are.
    """

    kind: str
    says: str
    files: tuple[str, ...]
    options: str
    tokenizer: str
    template: str
    controls: str
    today: str | None
    taboo_ids: tuple[int, ...]
    wire: Kind
    truncation: Truncation | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        says: str,
        files: Iterable[str],
        material: Material,
        tokenizer: str,
        wire: Kind,
        truncation: Truncation | None,
    ) -> OtherKey:
        """The key of a teacher that is made of this, its files and tokenizer by their digests."""
        options = json.dumps(material.options, sort_keys=True)
        read = (material.template, material.controls, material.today, material.taboo_ids)
        return cls(kind, says, tuple(files), options, tokenizer, *read, wire, truncation)


class SignalCache(Protocol):
    """Rows of examples by their digest."""

    @property
    def statistics(self) -> CacheStatistics:
        """What it did so far."""

    def get(self, digests: Iterable[str]) -> dict[str, Rows]:
        """The entries that are there."""

    def put(self, entries: Mapping[str, Rows]) -> None:
        """Keep these entries together, or none of them where they do not fit."""


@dataclass
class MemoryCache:
    """Signals in the memory of this process.

    Args:
        limit: in bytes.
    """

    limit: int
    statistics: CacheStatistics = field(default_factory=CacheStatistics)
    _entries: dict[str, Rows] = field(default_factory=dict)

    def get(self, digests: Iterable[str]) -> dict[str, Rows]:
        wanted = list(digests)
        found = {digest: self._entries[digest] for digest in wanted if digest in self._entries}
        self.statistics = self.statistics.looked_up(len(wanted), len(found))
        return found

    def put(self, entries: Mapping[str, Rows]) -> None:
        size = sum(array.nbytes for rows in entries.values() for array in rows.values())
        if self.statistics.stored_bytes + size > self.limit:
            self.statistics = replace(self.statistics, full=True)
            return
        self._entries |= entries
        self.statistics = self.statistics.stored(size)


def open_cache(settings: CacheSettings, key: Key) -> SignalCache:
    """The cache of one teacher. Several processes may open the same one on disk."""
    if settings.kind == "memory":
        return MemoryCache(settings.limit)
    assert settings.folder is not None, "a cache on disk has a folder"
    return DiskCache(settings.folder / key.name, key.text, settings.limit)
