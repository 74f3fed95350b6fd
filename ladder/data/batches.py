"""Which examples make up a step: a pure function of pools, shares, seed and step, so that resume is trivial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ladder.data.collate import Batch, Collation, collate
from ladder.data.examples import Example
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
        accumulation: micro-batches a step is split into.
    """

    pools: Mapping[str, Sequence[Example]]
    shares: Mapping[str, float]
    batch_size: int
    accumulation: int
    seed: int
    collation: Collation

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
            for index in _indices(len(self.pools[source]), rows, step, self.seed + SOURCES.index(source))
        ]
        parts = [chosen[part :: self.accumulation] for part in range(self.accumulation)]
        return tuple(
            collate([example for _, example in part], [SOURCES.index(source) for source, _ in part], self.collation)
            for part in parts
        )

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


def _indices(size: int, rows: int, step: int, seed: int) -> list[int]:
    """Positions ``step * rows ...`` of an endless sequence of shuffled passes over a pool of ``size``."""
    return [
        int(_shuffled(size, position // size, seed)[position % size])
        for position in range(step * rows, (step + 1) * rows)
    ]


@lru_cache(maxsize=16)
def _shuffled(size: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)
