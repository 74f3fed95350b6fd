"""Bytes on the wire and in the cache of signals: the run's batches gone through without any model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ladder.data.batches import Batch, Batches
from ladder.manifest import Runtime
from ladder.planning.memory import Shape, bytes_each
from ladder.teachers.cache import pack
from ladder.teachers.wire import Kind

MOST_STEPS = 1000
"""Steps that are gone through; a longer run is extrapolated from them."""
_PLACE = 8
"""Bytes that say which token a row is about."""
_ARRAYS = {"topk": ("values", "ids", "tail", "tail_at_T", "entropy", "surprisal")}


@dataclass
class TeacherTraffic:
    """One teacher as a source of bytes, and what its cache holds by now.

    Args:
        row_bytes: of one token's arrays.
        kind: of the wire.
        store: ``disk`` adds the headers of shards.
        limit: bytes that its cache may take; 0 keeps nothing.
        held: examples that the cache holds, by digest.
        taken: bytes that the cache takes.
        stored: bytes of those that this run adds.
        grid: most positions B x T that it reads at once; more than the student's where it is shown a context.
    """

    number: int
    dreams_only: bool
    row_bytes: int
    kind: Kind = "hidden"
    store: str = "disk"
    limit: int = 0
    key: str = ""
    held: set[str] = field(default_factory=set)
    taken: int = 0
    stored: int = 0
    hits: int = 0
    misses: int = 0
    grid: int = 0

    def hear(self, batch: Batch) -> int:
        """Take one micro-batch in; returns the bytes that it sends."""
        heard, places = batch.heard_by(self.number, dreams_only=self.dreams_only)
        self.grid = max(self.grid, heard.input_ids_BT.size)
        if len(places):
            self._recall(heard)
        return len(places) * (self.row_bytes + _PLACE)

    def _recall(self, heard: Batch) -> None:
        counts = np.bincount(heard.example_N, minlength=len(heard.digests))
        rows = {heard.digests[number]: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
        fresh = {digest: count for digest, count in rows.items() if digest not in self.held}
        self.hits, self.misses = self.hits + len(rows) - len(fresh), self.misses + len(fresh)
        size = stored_bytes(fresh, self.row_bytes, self.kind, self.key, self.store) if fresh else 0
        if size and self.taken + size <= self.limit:
            self.held |= fresh.keys()
            self.taken, self.stored = self.taken + size, self.stored + size


@dataclass(frozen=True)
class SignalPrice:
    """Of a whole run.

    Args:
        wire_bytes: that the student receives.
        cache_bytes: that the teachers store anew.
        hits, misses: examples found and examples read, of those steps that were gone through.
        largest: most wire bytes of one step.
        tokens, trained: through the student's backbone, and into the loss.
        grid: most positions B x T of a micro-batch; ``grid_trained`` its trained tokens.
    """

    wire_bytes: int
    cache_bytes: int
    hits: int
    misses: int
    largest: int
    tokens: int
    trained: int
    grid: int
    grid_trained: int

    @property
    def read_share(self) -> float:
        """Share of what teachers are asked that they must read, 0 to 1."""
        return self.misses / max(1, self.hits + self.misses)


def row_bytes(runtime: Runtime, dtype: str, shape: Shape, kept: int) -> int:
    """Bytes of one token's arrays: a hidden state, whole logits, or K logits with their ids and four statistics."""
    if runtime.wire == "topk":
        return 8 * kept + 16
    return bytes_each(dtype) * (shape.hidden if runtime.wire == "hidden" else shape.vocabulary)


def stored_bytes(rows: dict[str, int], row_bytes: int, kind: Kind, key: str, store: str) -> int:
    """What examples with so many rows take in a cache; on disk as one shard, whose header is written with empty
    arrays."""
    body = sum(rows.values()) * row_bytes
    if store != "disk":
        return body
    names = _ARRAYS.get(kind, ("values",))
    empty = {digest: {name: np.empty((count, 0), np.float32) for name in names} for digest, count in rows.items()}
    return body + len(pack(key, empty))


def price_signals(
    batches: Batches, steps: int, traffics: Sequence[TeacherTraffic], most: int = MOST_STEPS
) -> SignalPrice:
    """Go through the run's batches, or the first of them where there are many."""
    walked = min(steps, most)
    sent, sizes = [], []
    for step in range(walked):
        micro = batches(step)
        sent.append(sum(traffic.hear(batch) for traffic in traffics for batch in micro))
        sizes.append([(batch.input_ids_BT.size, len(batch.rows_N), batch.tokens) for batch in micro])
    factor = steps / walked
    everything = [size for step in sizes for size in step]
    grid, grid_trained, _ = max(everything)
    return SignalPrice(
        wire_bytes=int(sum(sent) * factor),
        cache_bytes=sum(traffic.stored + _later(batches, traffic, walked, steps) for traffic in traffics),
        hits=sum(traffic.hits for traffic in traffics),
        misses=sum(traffic.misses for traffic in traffics),
        largest=max(sent),
        tokens=int(sum(tokens for _, _, tokens in everything) * factor),
        trained=int(sum(trained for _, trained, _ in everything) * factor),
        grid=grid,
        grid_trained=grid_trained,
    )


def _later(batches: Batches, traffic: TeacherTraffic, walked: int, steps: int) -> int:
    """What is stored after the steps that were gone through: examples whose turn has not come yet."""
    if walked == steps or not traffic.limit or not traffic.misses:
        return 0
    rows = batches.rows_by_source()
    new = sum(
        _reached(pool, rows[source], steps) - _reached(pool, rows[source], walked)
        for source, pool in batches.pools.items()
        if _hears(traffic, source)
    )
    return max(0, min(new * traffic.stored // traffic.misses, traffic.limit - traffic.taken))


def _reached(pool: Sequence[object], rows: int, steps: int) -> int:
    """Distinct rows of a pool after so many steps: every row comes once before any comes again."""
    return min(len(pool), rows * steps)


def _hears(traffic: TeacherTraffic, source: str) -> bool:
    return source == "dreams" or not traffic.dreams_only


def held_on_disk(shards: Iterable[tuple[set[str], int]]) -> tuple[set[str], int]:
    """Examples and bytes of the shards of one cache."""
    found = list(shards)
    return {digest for digests, _ in found for digest in digests}, sum(size for _, size in found)
