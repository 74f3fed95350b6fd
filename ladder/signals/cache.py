"""What a frozen teacher said about an example is said once. Entries are never evicted, so which ones exist depends on
the order of the batches alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from ladder.models.digest import folder_digest, tokenizer_digest
from ladder.signals.disk_cache import DiskCache
from ladder.signals.statistics import CacheStatistics
from ladder.signals.topk import Truncation
from ladder.signals.wire import Kind, Rows


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


@dataclass(frozen=True)
class CacheKey:
    """Everything besides the example that a signal depends on.

    Args:
        teacher: digest of the teacher's folder.
        tokenizer: digest of its tokenizer.
        dtype: in which the teacher computes.
    """

    teacher: str
    tokenizer: str
    wire: Kind
    dtype: str
    truncation: Truncation | None = None

    @classmethod
    def of(cls, folder: Path, wire: Kind, dtype: str, truncation: Truncation | None) -> CacheKey:
        """The key of the teacher in ``folder``.

        Raises:
            ModelError: the folder cannot be digested.
        """
        return cls(folder_digest(folder), tokenizer_digest(folder), wire, dtype, truncation)

    @property
    def text(self) -> str:
        """The whole key in canonical form."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def name(self) -> str:
        """The name of its folder."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


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


def open_cache(settings: CacheSettings, key: CacheKey) -> SignalCache:
    """The cache of one teacher. Several processes may open the same one on disk."""
    if settings.kind == "memory":
        return MemoryCache(settings.limit)
    assert settings.folder is not None, "a cache on disk has a folder"
    return DiskCache(settings.folder / key.name, key.text, settings.limit)
