"""Examples to one padded or packed batch of arrays, aligned by trained token.

Everything about the loss is indexed by the N trained tokens, not by [B, T]: only their rows cross the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ladder.data.examples import Example

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
    """A micro-batch of numpy arrays (they cross Ray without a copy).

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
        without a wanted token are left out.
        """
        wanted_N = (self.dreamer_N == teacher) | ((self.dreamer_N == 0) & (not dreams_only))
        return self.select(wanted_N)

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
        )
        return view, places


def collate(examples: Sequence[Example], sources: Sequence[int], collation: Collation) -> Batch:
    """Lay examples out in sequences, one each or packed first-fit in order, padded on the right."""
    layout = (
        _pack(examples, collation.max_length) if collation.packing else [[number] for number in range(len(examples))]
    )
    width = max(sum(len(examples[number]) for number in sequence) for sequence in layout)
    grid = (len(layout), width)
    ids, positions, segments = (
        np.full(grid, collation.pad_id, np.int64),
        np.zeros(grid, np.int64),
        np.zeros(grid, np.int32),
    )
    columns: list[tuple[int, int, int, int, int]] = []
    for place, sequence in enumerate(layout):
        start = 0
        for segment, number in enumerate(sequence, 1):
            example, stop = examples[number], start + len(examples[number])
            ids[place, start:stop] = example.ids
            positions[place, start:stop] = np.arange(len(example))
            segments[place, start:stop] = segment
            for t in np.flatnonzero(example.trained).tolist():
                label = example.ids[t + 1] if example.gold else IGNORE
                columns.append((place * width + start + t, label, sources[number], example.dreamer, number))
            start = stop
    by_token = np.asarray(columns, dtype=np.int64).reshape(-1, 5).T.copy()
    rows_N, labels_N, source_N, dreamer_N, example_N = by_token
    digests = tuple(example.digest for example in examples)
    return Batch(ids, positions, segments, rows_N, labels_N, source_N, dreamer_N, example_N, digests)


def _pack(examples: Sequence[Example], max_length: int) -> list[list[int]]:
    """First fit in order: which examples share a sequence of at most ``max_length`` tokens."""
    layout: list[list[int]] = []
    room: list[int] = []
    for number, example in enumerate(examples):
        place = next((place for place, free in enumerate(room) if free >= len(example)), None)
        if place is None:
            layout.append([])
            room.append(max(max_length, len(example)))
            place = len(layout) - 1
        layout[place].append(number)
        room[place] -= len(example)
    return layout
