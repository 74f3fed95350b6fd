"""A batch's signal put together from a cache and from what the teacher still has to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ladder.data.collate import IGNORE, Batch
from ladder.signals.cache import SignalCache
from ladder.signals.wire import Rows


def recalled(heard: Batch, say: Callable[[Batch], Rows], cache: SignalCache) -> Rows:
    """The rows of all N tokens of a batch. An example that stands in it twice is read once.

    Args:
        say: the model's rows for every trained token of a batch; asked at most once, and only about sequences that
            hold an example which is not cached.
    """
    # In order of appearance, so that the order of batches alone decides what is stored together.
    numbers = {heard.digests[number]: number for number in reversed(np.unique(heard.example_N).tolist())}
    entries = cache.get(numbers)
    missing = [number for digest, number in numbers.items() if digest not in entries]
    if missing:
        view, _ = heard.select(np.isin(heard.example_N, missing))
        fresh = split(say(view), view)
        cache.put(fresh)
        entries |= fresh
    return assemble(entries, heard)


def split(rows: Rows, batch: Batch) -> dict[str, Rows]:
    """Rows [N] of a batch by the digest of their example, copied so that no part keeps the whole alive."""
    members = {number: batch.example_N == number for number in np.unique(batch.example_N).tolist()}
    return {
        batch.digests[number]: {name: array[member_N] for name, array in rows.items()}
        for number, member_N in members.items()
    }


def assemble(entries: Mapping[str, Rows], batch: Batch) -> Rows:
    """The entries of a batch's examples as rows in the order of its N tokens."""
    pattern = next(iter(entries.values()))
    shapes = {name: (len(batch.rows_N), *array.shape[1:]) for name, array in pattern.items()}
    rows = {name: np.empty(shape, pattern[name].dtype) for name, shape in shapes.items()}
    for number in np.unique(batch.example_N).tolist():
        member_N = batch.example_N == number
        for name, array in entries[batch.digests[number]].items():
            rows[name][member_N] = array
    return rows


def without_missing_labels(rows: Rows, batch: Batch) -> Rows:
    """The surprisal is stored for every next token, because the digest of an example does not say whether its labels
    are gold; what crosses the wire is 0 where they are not."""
    if "surprisal" not in rows:
        return rows
    return rows | {"surprisal": np.where(batch.labels_N == IGNORE, np.float32(0), rows["surprisal"])}
