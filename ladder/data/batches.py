"""Which examples make up a step, and that step as arrays aligned by trained token: pure functions of pools, shares,
seed and step, so that resume is trivial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import numpy as np

from ladder.data.examples import Example
from ladder.errors import ManifestError


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


def micro_batches(lengths: Sequence[int], parts: int, max_length: int | None, *, even: bool = False) -> list[list[int]]:
    """Split the rows of a step into micro-batches of sequences of similar length, so that the largest is smallest.

    Args:
        lengths: tokens of each row.
        parts: how many micro-batches; packing can leave fewer sequences than that, and then each has its own.
        max_length: tokens of a packed sequence, or None where every row is a sequence.
        even: no micro-batch is much smaller than the others, for ranks that wait for one another.

    Returns:
        For each micro-batch the numbers of its rows in ascending order; the micro-batch with the longest comes first.
    """
    rows = [[number] for number in range(len(lengths))] if max_length is None else pack(lengths, max_length)
    widths = [sum(lengths[number] for number in sequence) for sequence in rows]
    order = sorted(range(len(rows)), key=lambda place: -widths[place])
    ends = accumulate(split([widths[place] for place in order], min(parts, len(rows)), even=even), initial=0)
    runs = [order[start:stop] for start, stop in pairwise(ends)]
    return [sorted(number for place in run for number in rows[place]) for run in runs]


def split(widths: Sequence[int], parts: int, *, even: bool = False) -> list[int]:
    """Cut decreasing widths into runs so that the largest padded area (rows x widest row) is as small as it can be.

    Args:
        even: each run has about its part of what is left, instead of all that its area holds, which leaves little to
            the last one.

    Returns:
        Rows in each of the ``parts`` runs, at least one.
    """
    low, high = widths[0], widths[0] * len(widths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(_runs(widths, parts, middle)) == len(widths) else (middle + 1, high)
    return _even_runs(widths, parts, low) if even else _runs(widths, parts, low)


def _even_runs(widths: Sequence[int], parts: int, area: int) -> list[int]:
    """Runs of at most this area, each with about its part of the tokens that are left."""
    counts: list[int] = []
    for left in range(parts, 0, -1):
        rest = widths[sum(counts) :]
        wanted = (
            min(round(sum(rest) / left / rest[0]), area // rest[0], len(rest) - left + 1) if left > 1 else len(rest)
        )
        count = max(1, wanted)
        while left > 1 and sum(_runs(rest[count:], left - 1, area)) < len(rest) - count:
            count += 1
        counts.append(count)
    return counts


def _runs(widths: Sequence[int], parts: int, area: int) -> list[int]:
    """Fill each run up to ``area``, and leave a row for each run that follows. Covers all widths if the area allows."""
    counts: list[int] = []
    for after in reversed(range(parts)):
        start = sum(counts)
        counts.append(min(area // widths[start], len(widths) - start - after))
    return counts


IGNORE = -100
"""Label of a trained token that has no gold label."""


@dataclass(frozen=True)
class Collation:
    """How examples share a batch. With ``packing`` a sequence holds as many examples as fit into ``max_length``."""

    pad_id: int
    max_length: int
    packing: bool = False


@dataclass(frozen=True)
class Batch:
    """A micro-batch of numpy arrays, which cross Ray without a copy; readings, where there are any, are copied.

    Args:
        input_ids_BT: token ids.
        position_ids_BT: position of each token within its own example.
        segment_BT: 0 for padding, else 1 + which example of this sequence a token belongs to.
        rows_N: flat index b * T + t of each position that predicts a trained token.
        labels_N: the gold label, or ``IGNORE``.
        source_N: index into ``SOURCES``.
        dreamer_N: 0, or which teacher alone teaches the token: it dreamt it, or scores what the student wrote.
        example_N: which example of the batch the token belongs to.
        digests: digest of each example of the batch, by that number.
        readings: for a teacher that sees more than the student, its reading of each example, by that number.
        again: numbers of the examples that an earlier step of the run has read.
        weight_N: how much each token counts in the loss beside the others of its source; None where all count alike.
    """

    input_ids_BT: np.ndarray
    position_ids_BT: np.ndarray
    segment_BT: np.ndarray
    rows_N: np.ndarray
    labels_N: np.ndarray
    source_N: np.ndarray
    dreamer_N: np.ndarray
    example_N: np.ndarray
    digests: tuple[str, ...]
    readings: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    weight_N: np.ndarray | None = None

    @property
    def first_N(self) -> np.ndarray:
        """Tokens of examples that are read for the first time, bool."""
        return ~np.isin(self.example_N, list(self.again))

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int((self.segment_BT > 0).sum())

    @property
    def packed(self) -> bool:
        return bool((self.segment_BT > 1).any())

    def attention(self) -> np.ndarray:
        """A [B, T] padding mask, or for a packed batch the [B, 1, T, T] causal mask within examples."""
        if not self.packed:
            return (self.segment_BT > 0).astype(np.int64)
        same_BTT = self.segment_BT[:, :, None] == self.segment_BT[:, None, :]
        return (same_BTT & np.tri(self.segment_BT.shape[1], dtype=bool))[:, None]

    def heard_by(
        self, teacher: int, *, dreams_only: bool = False, replica: int = 0, replicas: int = 1
    ) -> tuple[Batch, np.ndarray]:
        """The sequences that this teacher (1 or 2) must read, and which of the N tokens they hold.

        A dream needs only its own dreamer; with ``dreams_only`` the teacher has nothing to say on other text. Sequences
        without a wanted token are left out. Where the teacher sees more than the student, they are its own readings.
        Of several replicas each reads the sequences that are its own.
        """
        wanted_N = (self.dreamer_N == teacher) | ((self.dreamer_N == 0) & (not dreams_only))
        if replicas > 1:
            wanted_N &= self.sequence_keys() % replicas == replica
        heard, places = self.select(wanted_N)
        return heard.read_by(teacher), places

    def sequence_keys(self) -> np.ndarray:
        """A number that belongs to the sequence of each token, int64 [N], by which a teacher's replicas share out
        sequences: the digest of the first example gives it, so that an example by itself goes to the same replica, and
        its cache, every time."""
        _, first, sequence_N = np.unique(
            self.rows_N // self.input_ids_BT.shape[1], return_index=True, return_inverse=True
        )
        names = [self.digests[number] for number in self.example_N[first].tolist()]
        return np.asarray([int(name[:8], 16) for name in names], dtype=np.int64)[sequence_N]

    def read_by(self, teacher: int) -> Batch:
        """The same trained tokens as this teacher reads them, where that is more than is in the batch."""
        if teacher not in self.readings or len(self.rows_N) == 0:
            return self
        numbers, first = np.unique(self.example_N, return_index=True)
        order = numbers[np.argsort(first)]
        sources, told = self.source_N[np.sort(first)].tolist(), [self.readings[teacher][number] for number in order]
        # Whole examples follow one another in the N tokens, so that sequences of their own keep the order.
        return collate(told, sources, Collation(pad_id=0, max_length=max(map(len, told))))

    def select(self, wanted_N: np.ndarray) -> tuple[Batch, np.ndarray]:
        """The sequences that hold a wanted token, with those tokens as the trained ones, and which of the N these are.

        The other examples of a packed sequence stay in it.
        """
        width = self.input_ids_BT.shape[1]
        keep_B = np.zeros(self.input_ids_BT.shape[0], dtype=bool)
        keep_B[np.unique(self.rows_N[wanted_N] // width)] = True
        places = np.flatnonzero(wanted_N)
        shift_B = np.cumsum(keep_B) - 1
        rows_N = self.rows_N[places]
        view = Batch(
            input_ids_BT=self.input_ids_BT[keep_B],
            position_ids_BT=self.position_ids_BT[keep_B],
            segment_BT=self.segment_BT[keep_B],
            rows_N=shift_B[rows_N // width] * width + rows_N % width,
            labels_N=self.labels_N[places],
            source_N=self.source_N[places],
            dreamer_N=self.dreamer_N[places],
            example_N=self.example_N[places],
            digests=self.digests,
            readings=self.readings,
            again=self.again,
            weight_N=None if self.weight_N is None else self.weight_N[places],
        )
        return view, places


def dealt(micro: Sequence[Batch], ranks: int) -> tuple[tuple[Batch, ...], ...]:
    """The micro-batches of a step by rank, dealt out in turns.

    Every rank gets equally many, empty ones where they do not suffice: all ranks take part in every exchange of
    gradients, so those with fewer micro-batches would keep the others waiting for ever.
    """
    filled = [*micro, *[empty()] * (-len(micro) % ranks)]
    return tuple(tuple(filled[rank::ranks]) for rank in range(ranks))


def empty() -> Batch:
    """A micro-batch without a trained token: one token that nothing is learned from."""
    one_BT, none_N = np.zeros((1, 1), np.int64), np.zeros(0, np.int64)
    return Batch(one_BT, one_BT, one_BT.astype(np.int32) + 1, none_N, none_N, none_N, none_N, none_N, ())


def collate(examples: Sequence[Example], sources: Sequence[int], collation: Collation) -> Batch:
    """Lay examples out in sequences, one each or packed, padded on the right."""
    lengths_E = np.asarray([len(example) for example in examples])
    layout = _layout(lengths_E, collation)
    segment_E, first_E, grid = _places(lengths_E, layout)
    order_E = np.asarray([number for sequence in layout for number in sequence])
    own_E = lengths_E[order_E]
    # Below, M are the tokens of all examples, one after another as they are laid out.
    ids_M = np.concatenate([examples[number].ids for number in order_E])
    trained_M = np.concatenate([(*examples[number].trained, False) for number in order_E])
    position_M = np.arange(len(ids_M)) - np.repeat(np.cumsum(own_E) - own_E, own_E)
    place_M = np.repeat(first_E, own_E) + position_M
    trained = np.flatnonzero(trained_M)
    example_N = np.repeat(order_E, own_E)[trained]
    gold_E = np.asarray([example.gold for example in examples])
    dreamer_E = np.asarray([example.dreamer for example in examples], dtype=np.int64)
    weight_E = np.asarray([example.weight for example in examples])
    return Batch(
        _scattered(grid, place_M, ids_M, collation.pad_id),
        _scattered(grid, place_M, position_M, 0),
        _scattered(grid, place_M, np.repeat(segment_E, own_E), 0).astype(np.int32),
        rows_N=place_M[trained],
        labels_N=np.where(gold_E[example_N], ids_M[trained + 1], IGNORE),
        source_N=np.asarray(sources, dtype=np.int64)[example_N],
        dreamer_N=dreamer_E[example_N],
        example_N=example_N,
        digests=tuple(example.digest for example in examples),
        readings=_readings(examples),
        weight_N=weight_E[example_N] if (weight_E != 1).any() else None,
    )


def _readings(examples: Sequence[Example]) -> dict[int, tuple[Example, ...]]:
    """The sequences of each teacher with a context; an example without one is read as it is."""
    teachers = sorted({number for example in examples for number in example.readings})
    return {number: tuple(example.readings.get(number, example) for example in examples) for number in teachers}


def _layout(lengths_E: np.ndarray, collation: Collation) -> list[list[int]]:
    """Which examples share a sequence."""
    lengths = lengths_E.tolist()
    return pack(lengths, collation.max_length) if collation.packing else [[number] for number in range(len(lengths))]


def _places(lengths_E: np.ndarray, layout: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Of each example, as they are laid out: its segment and the flat index of its first token; and the grid [B, T]."""
    width = max(int(lengths_E[sequence].sum()) for sequence in layout)
    starts = [np.cumsum(lengths_E[sequence]) - lengths_E[sequence] for sequence in layout]
    first_E = np.concatenate([place * width + start for place, start in enumerate(starts)])
    segment_E = np.concatenate([np.arange(1, len(sequence) + 1) for sequence in layout])
    return segment_E, first_E, (len(layout), width)


def _scattered(grid: tuple[int, int], place_M: np.ndarray, values_M: np.ndarray, fill: int) -> np.ndarray:
    """An int64 grid [B, T] with these values at these flat indices."""
    values_BT = np.full(grid, fill, np.int64)
    values_BT.reshape(-1)[place_M] = values_M
    return values_BT


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


SOURCES = ("new", "replay", "dreams", "written")
"""Where an example comes from; its index is ``Batch.source_N``."""
WRITTEN = SOURCES[-1]
"""What the student wrote itself."""


@dataclass(frozen=True)
class Batches:
    """The batch of every step. ``batches(step)`` gives the micro-batches of that step.

    Args:
        pools: examples by source, for sources that have any.
        shares: share of each source in a batch and in the loss; normalised over the pools.
        batch_size: examples in a step.
        accumulation: micro-batches of each rank that a step is split into, fewer where packing leaves fewer sequences.
        group_by_length: the rows of a step have similar lengths.
        ranks: processes among which a step is dealt out.
        rounds: of what the student wrote, the pool of each round by the first step that takes from it. The pool
            ``written`` is all of them.
    """

    pools: Mapping[str, Sequence[Example]]
    shares: Mapping[str, float]
    batch_size: int
    accumulation: int
    seed: int
    collation: Collation
    group_by_length: bool = False
    ranks: int = 1
    rounds: Mapping[int, Sequence[Example]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fewest = max(self.ranks * self.accumulation, len(self.pools))
        if self.batch_size < fewest:
            ranks = f" of {self.ranks} ranks" if self.ranks > 1 else ""
            raise ManifestError(
                f"{self.batch_size} rows cannot be divided among {', '.join(self.pools)} "
                f"and {self.accumulation} accumulation steps{ranks}",
                where="training_params.batch_size",
                remedy=f"at least {fewest}",
            )

    def __call__(self, step: int) -> tuple[Batch, ...]:
        # The rows of a pass come first in the step in which it ends, so those are the first ones of the step that are
        # read for the first time.
        chosen = [
            (source, pool[index], (step - first) * rows + place >= len(pool))
            for source, rows in self.rows_by_source().items()
            for pool, first in [self._pool(source, step)]
            for place, index in enumerate(self._indices(source, rows, step).tolist())
        ]
        longest = self.collation.max_length if self.collation.packing else None
        lengths, several = [len(example) for _, example, _ in chosen], self.ranks > 1
        parts = micro_batches(lengths, self.ranks * self.accumulation, longest, even=several)
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

    def in_round(self, first: int, pool: Sequence[Example]) -> Batches:
        """Of the steps of one round alone, which begins with step ``first`` and takes from this pool."""
        return replace(self, pools={**self.pools, WRITTEN: pool}, rounds={first: pool})

    def _pool(self, source: str, step: int) -> tuple[Sequence[Example], int]:
        """The rows of a source that this step takes from, and the first step that does."""
        if source != WRITTEN or not self.rounds:
            return self.pools[source], 0
        first = max(first for first in self.rounds if first <= step)
        return self.rounds[first], first

    def _indices(self, source: str, rows: int, step: int) -> np.ndarray:
        """Which rows of a pool this step takes."""
        seed, (pool, first) = self.seed + SOURCES.index(source), self._pool(source, step)
        if not self.group_by_length:
            return shuffled(len(pool), rows, step - first, step - first + 1, seed)
        own = self._lengths[source, first]
        return grouped_by_length(own, rows, step - first, seed, window_ranks(step - first, self.seed))

    @cached_property
    def _lengths(self) -> dict[tuple[str, int], np.ndarray]:
        pools = {(source, 0): rows for source, rows in self.pools.items()}
        pools |= {(WRITTEN, first): rows for first, rows in self.rounds.items()}
        return {key: np.asarray([len(row) for row in rows]) for key, rows in pools.items()}

    def _collate(self, part: Sequence[tuple[str, Example, bool]]) -> Batch:
        sources, examples, again = zip(*part, strict=True)
        batch = collate(examples, [SOURCES.index(source) for source in sources], self.collation)
        return replace(batch, again=frozenset(np.flatnonzero(again).tolist()))
