"""What teachers send and keep in a run, in bytes: its batches gone through without any model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ladder.data.batches import Batch, Batches, dealt
from ladder.manifest import Manifest, Runtime, others
from ladder.planning.memory import Shape, bytes_each
from ladder.planning.pools import Reading
from ladder.planning.start import Start
from ladder.setup import cache_settings, expected_key, steering_of, truncation_of, wire_of
from ladder.teachers import CacheKey, CacheSettings, Kind, KindSpec, OtherKey, computed_in, pack, shards
from ladder.teachers.host import kind_class

MOST_STEPS = 1000
"""Steps that are gone through; a longer run is extrapolated from them."""
_PLACE = 8
"""Bytes that say which token a row is about."""
_TOPK = ("values", "ids", "tail", "tail_at_T", "entropy", "surprisal")
_ARRAYS = {"topk": _TOPK, "sparse": (*_TOPK, "origin")}


@dataclass
class TeacherTraffic:
    """One teacher as a source of bytes, and what its cache holds by now.

    Args:
        row_bytes: of one token's arrays.
        kind: of the wire; ``sparse`` for top-k with the source that spoke.
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
    kind: Kind | Literal["sparse"] = "hidden"
    store: str = "disk"
    limit: int = 0
    key: str = ""
    held: set[str] = field(default_factory=set)
    taken: int = 0
    stored: int = 0
    hits: int = 0
    misses: int = 0
    grid: int = 0
    reading: Reading = field(default_factory=Reading)

    def hear(self, batch: Batch) -> int:
        """Take one micro-batch in; returns the bytes that it sends."""
        heard, places = batch.heard_by(self.number, dreams_only=self.dreams_only)
        self.grid = max(self.grid, heard.input_ids_BT.size)
        if len(places):
            fresh = self._recall(heard)
            rows, width = heard.input_ids_BT.shape
            read_N = np.isin(heard.example_N, [n for n, digest in enumerate(heard.digests) if digest in fresh])
            _, first = np.unique(heard.rows_N[read_N] // width, return_index=True)
            self.reading.take(batch.sequence_keys()[places][read_N][first], width, rows)
        return len(places) * (self.row_bytes + _PLACE)

    def _recall(self, heard: Batch) -> Collection[str]:
        """Take in what a micro-batch asks of the cache; returns the digests that are not there."""
        counts = np.bincount(heard.example_N, minlength=len(heard.digests))
        rows = {heard.digests[number]: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
        fresh = {digest: count for digest, count in rows.items() if digest not in self.held}
        self.hits, self.misses = self.hits + len(rows) - len(fresh), self.misses + len(fresh)
        size = stored_bytes(fresh, self.row_bytes, self.kind, self.key, self.store) if fresh else 0
        if size and self.taken + size <= self.limit:
            self.held |= fresh.keys()
            self.taken, self.stored = self.taken + size, self.stored + size
        return fresh.keys()


@dataclass(frozen=True)
class SignalPrice:
    """Of a whole run.

    Args:
        wire_bytes: that the student receives.
        cache_bytes: that the teachers store anew.
        hits, misses: examples found and examples read, of those steps that were gone through.
        largest: most wire bytes of one step; ``rank_largest`` of those of it that one rank receives.
        tokens, trained: through the student's backbone, and into the loss.
        grid: most positions B x T of a micro-batch; ``grid_trained`` its trained tokens.
        walked_grid: positions of all micro-batches that were gone through.
        sent_by, stored_by: ``wire_bytes`` and ``cache_bytes`` of each teacher, in their order.
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
    rank_largest: int
    walked_grid: int
    sent_by: tuple[int, ...] = ()
    stored_by: tuple[int, ...] = ()

    @property
    def read_share(self) -> float:
        """Share of what teachers are asked that they must read, 0 to 1."""
        return self.misses / max(1, self.hits + self.misses)


def row_bytes(runtime: Runtime, dtype: str, shape: Shape, kept: int) -> int:
    """Bytes of one token's arrays: a hidden state, whole logits, or K logits with their ids and four statistics."""
    if runtime.wire == "topk":
        return 8 * kept + 16
    return bytes_each(dtype) * (shape.hidden if runtime.wire == "hidden" else shape.vocabulary)


def made_row_bytes(manifest: Manifest, made: KindSpec) -> tuple[int, Kind | Literal["sparse"]]:
    """The same of a teacher that is no model, as if it spoke of every token; and the kind of its traffic."""
    kind, truncation = wire_of(manifest, made)
    if truncation is None:
        return 4 * made.vocabulary, kind
    sparse = kind_class(made.word).says == "sparse"
    return 8 * truncation.kept + 16 + 4 * sparse, "sparse" if sparse else kind


def stored_bytes(rows: dict[str, int], row_bytes: int, kind: Kind | Literal["sparse"], key: str, store: str) -> int:
    """What examples with so many rows take in a cache; on disk as one shard, whose header is written with empty
    arrays."""
    body = sum(rows.values()) * row_bytes
    if store != "disk":
        return body
    names = _ARRAYS.get(kind, ("values",))
    empty = {digest: {name: np.empty((count, 0), np.float32) for name in names} for digest, count in rows.items()}
    return body + len(pack(key, empty))


def price_signals(
    batches: Batches, steps: int, traffics: Sequence[TeacherTraffic], most: int = MOST_STEPS, ranks: int = 1
) -> SignalPrice:
    """Go through the run's batches, or the first of them where there are many.

    Args:
        ranks: of the student, among which each step is dealt out.
    """
    walked = min(steps, most)
    sent, sizes, received, by_teacher = [], [], [], [0] * len(traffics)
    for step in range(walked):
        micro = batches(step)
        for traffic in traffics:
            traffic.reading.step()
        shares = []
        for share in dealt(micro, ranks):
            heard = [[traffic.hear(batch) for traffic in traffics] for batch in share]
            shares.append(sum(map(sum, heard)))
            by_teacher = [total + sum(one) for total, *one in zip(by_teacher, *heard, strict=True)]
        sent.append(sum(shares))
        received.append(max(shares))
        sizes.append([(batch.input_ids_BT.size, len(batch.rows_N), batch.tokens) for batch in micro])
    factor = steps / walked
    everything = [size for step in sizes for size in step]
    grid, grid_trained, _ = max(everything)
    stored = [traffic.stored + _later(batches, traffic, walked, steps) for traffic in traffics]
    return SignalPrice(
        wire_bytes=int(sum(sent) * factor),
        cache_bytes=sum(stored),
        hits=sum(traffic.hits for traffic in traffics),
        misses=sum(traffic.misses for traffic in traffics),
        largest=max(sent),
        tokens=int(sum(tokens for _, _, tokens in everything) * factor),
        trained=int(sum(trained for _, trained, _ in everything) * factor),
        grid=grid,
        grid_trained=grid_trained,
        rank_largest=max(received),
        walked_grid=sum(positions for positions, _, _ in everything),
        sent_by=tuple(int(total * factor) for total in by_teacher),
        stored_by=tuple(stored),
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


def traffics_of(
    ahead: Start, home: Path, shapes: Mapping[int, Shape], devices: Mapping[int, str]
) -> list[TeacherTraffic]:
    """Every teacher on its device as a source of bytes, with what earlier runs have left in its cache."""
    return [
        _traffic(ahead, home, number, shapes[number], devices[number])
        if number in shapes
        else _made_traffic(ahead, home, number)
        for number in ahead.numbers
    ]


def _made_traffic(ahead: Start, home: Path, number: int) -> TeacherTraffic:
    """The same of one that is no model."""
    manifest, made = ahead.request.manifest, ahead.made[number]
    size, kind = made_row_bytes(manifest, made)
    traffic = TeacherTraffic(number, number not in ahead.speakers, size, kind, manifest.runtime.signal_cache)
    settings = cache_settings(manifest.runtime, home)
    return _with_cache(traffic, settings, lambda: expected_key(ahead.request, others(manifest)[number], made))


def _with_cache(
    traffic: TeacherTraffic, settings: CacheSettings | None, key_of: Callable[[], CacheKey | OtherKey]
) -> TeacherTraffic:
    """With what the cache of this key holds; the key is made where it is needed."""
    if settings is None:
        return traffic
    traffic.limit = settings.limit
    if settings.kind == "disk" and settings.folder is not None:
        key = key_of()
        traffic.key = key.text
        traffic.held, traffic.taken = held_on_disk(shards(settings.folder / key.name, key.text))
    return traffic


def _traffic(ahead: Start, home: Path, number: int, shape: Shape, device: str = "cpu") -> TeacherTraffic:
    """A model on its device."""
    manifest, folder = ahead.request.manifest, ahead.teachers[number]
    runtime, dtype = manifest.runtime, manifest.student.dtype
    truncation, settings = truncation_of(manifest, folder), cache_settings(runtime, home)
    size = row_bytes(runtime, dtype, shape, truncation.kept if truncation else 0)
    traffic = TeacherTraffic(number, number not in ahead.speakers, size, runtime.wire, runtime.signal_cache)
    steering = steering_of(ahead.request, number, folder)
    told = (runtime.wire, computed_in(dtype, device), truncation, steering)
    return _with_cache(traffic, settings, lambda: CacheKey.of(folder, *told))


def largest_step(ahead: Start, home: Path) -> int:
    """Most bytes of signals of one step, cached or not, wherever they are made."""
    shapes = {number: Shape.of_folder(folder) for number, folder in ahead.teachers.items()}
    traffics = traffics_of(ahead, home, shapes, dict.fromkeys(ahead.numbers, "cpu"))
    return price_signals(ahead.batches, ahead.request.manifest.training_params.steps, traffics).largest
