"""Which rows share a sequence, and which sequences share a micro-batch. Lengths in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """First fit decreasing: which rows share a sequence of at most ``max_length`` tokens.

    A longer row has a sequence of its own length. Any of these sequences, packed again without the others, come out as
    they were: so a step can be packed as a whole and then split. At most 11/9 of the fewest sequences, plus one
    (Johnson 1973).

    Returns:
        For each sequence the numbers of its rows in ascending order; sequences ordered by their first row.
    """
    layout: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        place = next((place for place, free in enumerate(room) if free >= lengths[number]), len(room))
        if place == len(room):
            layout.append([])
            room.append(max_length)
        layout[place].append(number)
        room[place] -= lengths[number]
    return sorted(sorted(sequence) for sequence in layout)


def micro_batches(lengths: Sequence[int], parts: int, max_length: int | None) -> list[list[int]]:
    """Split the rows of a step into micro-batches of sequences of similar length, so that the largest is smallest.

    Args:
        lengths: tokens of each row.
        parts: how many micro-batches; packing can leave fewer sequences than that, and then each has its own.
        max_length: tokens of a packed sequence, or None where every row is a sequence.

    Returns:
        For each micro-batch the numbers of its rows in ascending order; the micro-batch with the longest comes first.
    """
    rows = [[number] for number in range(len(lengths))] if max_length is None else pack(lengths, max_length)
    widths = [sum(lengths[number] for number in sequence) for sequence in rows]
    order = sorted(range(len(rows)), key=lambda place: -widths[place])
    ends = accumulate(split([widths[place] for place in order], min(parts, len(rows))), initial=0)
    runs = [order[start:stop] for start, stop in pairwise(ends)]
    return [sorted(number for place in run for number in rows[place]) for run in runs]


def split(widths: Sequence[int], parts: int) -> list[int]:
    """Cut decreasing widths into runs so that the largest padded area (rows x widest row) is as small as it can be.

    Returns:
        Rows in each of the ``parts`` runs, at least one.
    """
    low, high = widths[0], widths[0] * len(widths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(_runs(widths, parts, middle)) == len(widths) else (middle + 1, high)
    return _runs(widths, parts, low)


def _runs(widths: Sequence[int], parts: int, area: int) -> list[int]:
    """Fill each run up to ``area``, and leave a row for each run that follows. Covers all widths if the area allows."""
    counts: list[int] = []
    for after in reversed(range(parts)):
        start = sum(counts)
        counts.append(min(area // widths[start], len(widths) - start - after))
    return counts
