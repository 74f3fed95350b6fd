"""What a signal cache did, for telemetry."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
