"""Which examples make up a step: a pure function of pools, shares, seed and step, so that resume is trivial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ladder.data.collate import Batch, Collation, collate
from ladder.data.examples import Example
from ladder.data.layout import micro_batches
from ladder.data.order import grouped_by_length, shuffled, window_ranks
from ladder.errors import ManifestError

SOURCES = ("new", "replay", "dreams")
"""Where an example comes from; its index is ``Batch.source_N``."""


@dataclass(frozen=True)
class Batches:
    """The batch of every step. ``batches(step)`` gives the micro-batches of that step.

    Args:
        pools: examples by source, for sources that have any.
        shares: share of each source in a batch and in the loss; normalised over the pools.
        batch_size: examples in a step.
        accumulation: micro-batches a step is split into, fewer where packing leaves fewer sequences.
        group_by_length: the rows of a step have similar lengths.
    """

    pools: Mapping[str, Sequence[Example]]
    shares: Mapping[str, float]
    batch_size: int
    accumulation: int
    seed: int
    collation: Collation
    group_by_length: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < max(self.accumulation, len(self.pools)):
            raise ManifestError(
                f"{self.batch_size} rows cannot be divided among {', '.join(self.pools)} "
                f"and {self.accumulation} accumulation steps",
                where="training_params.batch_size",
                remedy=f"at least {max(self.accumulation, len(self.pools))}",
            )

    def __call__(self, step: int) -> tuple[Batch, ...]:
        chosen = [
            (source, self.pools[source][index])
            for source, rows in self.rows_by_source().items()
            for index in self._indices(source, rows, step).tolist()
        ]
        longest = self.collation.max_length if self.collation.packing else None
        parts = micro_batches([len(example) for _, example in chosen], self.accumulation, longest)
        return tuple(self._collate([chosen[number] for number in part]) for part in parts)

    def rows_by_source(self) -> dict[str, int]:
        """Rows of each source in a batch: its share of the batch size, at least one, summing to the batch size."""
        weights = {source: self.shares[source] for source in self.pools}
        ideal = {source: self.batch_size * weight / sum(weights.values()) for source, weight in weights.items()}
        rows = {source: max(1, int(amount)) for source, amount in ideal.items()}
        while sum(rows.values()) != self.batch_size:
            missing = 1 if sum(rows.values()) < self.batch_size else -1
            adjustable = [source for source in rows if rows[source] + missing >= 1]
            rows[max(adjustable, key=lambda source: missing * (ideal[source] - rows[source]))] += missing
        return rows

    def _indices(self, source: str, rows: int, step: int) -> np.ndarray:
        """Which rows of a pool this step takes."""
        seed = self.seed + SOURCES.index(source)
        if not self.group_by_length:
            return shuffled(len(self.pools[source]), rows, step, step + 1, seed)
        return grouped_by_length(self._lengths[source], rows, step, seed, window_ranks(step, self.seed))

    @cached_property
    def _lengths(self) -> dict[str, np.ndarray]:
        return {source: np.asarray([len(row) for row in rows]) for source, rows in self.pools.items()}

    def _collate(self, part: Sequence[tuple[str, Example]]) -> Batch:
        return collate([example for _, example in part], [SOURCES.index(source) for source, _ in part], self.collation)
