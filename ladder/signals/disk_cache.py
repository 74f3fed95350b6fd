"""Signals on disk: a folder of shards for one key, which several processes may read and write at once.

A shard appears whole, by a rename, and is never written to again, so nobody needs a lock. A shard that is not what it
should be is removed, and its examples are computed again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ladder.errors import ModelError, RunError
from ladder.signals.shard import pack, read_rows, read_spans, verify, write_shard
from ladder.signals.statistics import CacheStatistics
from ladder.signals.wire import Rows

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
