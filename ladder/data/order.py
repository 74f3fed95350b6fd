"""In which order the rows of a pool are learned from: pure functions of pool, seed and step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WINDOW = 32
"""Steps whose rows are sorted by length together. More save little more padding and make the steps less alike."""


def shuffled(size: int, rows: int, start: int, stop: int, seed: int) -> np.ndarray:
    """What the steps ``start`` to ``stop`` of ``rows`` rows take of an endless sequence of shuffled passes over a pool
    of ``size``."""
    positions = np.arange(start * rows, stop * rows)
    passes = range(positions[0] // size, positions[-1] // size + 1)
    drawn = np.concatenate([_shuffled_pass(size, number, seed) for number in passes])
    return drawn[positions - passes[0] * size]


def grouped_by_length(lengths_P: np.ndarray, rows: int, step: int, seed: int, ranks_W: np.ndarray) -> np.ndarray:
    """What a step takes when the rows of a window of steps are sorted by length before they are dealt out.

    Only steps of one pass are sorted together, so a pass still holds each row once; a step in which a pass ends is left
    as it was shuffled.

    Args:
        lengths_P: tokens of each row of the pool.
        rows: rows that a step takes of this pool.
        seed: of this pool's shuffles.
        ranks_W: how long the rows of each step of this window should be, a permutation. Pools that share it give a step
            rows of similar rank.
    """
    size, first = len(lengths_P), step // WINDOW * WINDOW
    number = step * rows // size
    start, stop = max(first, -(-number * size // rows)), min(first + WINDOW, (number + 1) * size // rows)
    if not start <= step < stop:
        return shuffled(size, rows, step, step + 1, seed)
    taken = shuffled(size, rows, start, stop, seed)
    by_length = taken[np.argsort(lengths_P[taken], kind="stable")]
    rank = int((ranks_W[start - first : stop - first] < ranks_W[step - first]).sum())
    return by_length[rank * rows : (rank + 1) * rows]


def window_ranks(step: int, seed: int) -> np.ndarray:
    """A permutation for the window of this step, the same for every pool."""
    return np.random.default_rng([seed, step // WINDOW, WINDOW]).permutation(WINDOW)


@lru_cache(maxsize=16)
def _shuffled_pass(size: int, number: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(size)
