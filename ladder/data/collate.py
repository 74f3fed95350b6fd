"""Examples to one padded or packed batch of arrays, aligned by trained token.

Everything about the loss is indexed by the N trained tokens, not by [B, T]: only their rows cross the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ladder.data.examples import Example
from ladder.data.layout import pack

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
        dreamer_N: 0, or which teacher dreamt the token.
        example_N: which example of the batch the token belongs to.
        digests: digest of each example of the batch, by that number.
        readings: for a teacher that sees more than the student, its reading of each example, by that number.
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

    def heard_by(self, teacher: int, *, dreams_only: bool = False) -> tuple[Batch, np.ndarray]:
        """The sequences that this teacher (1 or 2) must read, and which of the N tokens they hold.

        A dream needs only its own dreamer; with ``dreams_only`` the teacher has nothing to say on other text. Sequences
        without a wanted token are left out. Where the teacher sees more than the student, they are its own readings.
        """
        wanted_N = (self.dreamer_N == teacher) | ((self.dreamer_N == 0) & (not dreams_only))
        heard, places = self.select(wanted_N)
        return heard.read_by(teacher), places

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
        )
        return view, places


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
    )


def _readings(examples: Sequence[Example]) -> dict[int, tuple[Example, ...]]:
    """What each teacher reads that sees more; an example without a reading of its own is read as it is."""
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
