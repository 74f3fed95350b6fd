"""Padding and packing, alignment by trained token, and what each teacher must read of a batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.data.batches import IGNORE, Batch, Collation, collate, pack
from ladder.data.examples import Example

PADDED, PACKED = Collation(pad_id=0, max_length=8), Collation(pad_id=0, max_length=8, packing=True)
A = Example((11, 12, 13), (False, True), gold=True)
B = Example((21, 22, 23, 24), (True, True, False), gold=False)
C = Example((31, 32, 33, 34, 35), (False, True, True, True), gold=False, dreamer=1)
D = Example((41, 42), (True,), gold=False, dreamer=2)
SEEN = st.lists(st.tuples(st.integers(2, 9), st.integers(0, 2)), min_size=1, max_size=8)


def tokens(batch: Batch) -> list[tuple[int, ...]]:
    """Each trained token: the ids up to it in its own example, what it teaches, and where it comes from."""
    found = []
    width = batch.input_ids_BT.shape[1]
    for row, label, source, dreamer, example in zip(
        batch.rows_N, batch.labels_N, batch.source_N, batch.dreamer_N, batch.example_N, strict=True
    ):
        b, t = divmod(int(row), width)
        own = (batch.segment_BT[b] == batch.segment_BT[b, t]) & (np.arange(width) <= t)
        found.append((*batch.input_ids_BT[b][own].tolist(), -1, int(label), int(source), int(dreamer), int(example)))
    return sorted(found)


def test_padded() -> None:
    batch = collate([A, B, D], [0, 1, 2], PADDED)
    assert batch.input_ids_BT.tolist() == [[11, 12, 13, 0], [21, 22, 23, 24], [41, 42, 0, 0]]
    assert batch.segment_BT.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch.rows_N.tolist() == [1, 4, 5, 8]
    assert batch.labels_N.tolist() == [13, IGNORE, IGNORE, IGNORE]
    assert batch.source_N.tolist() == [0, 1, 1, 2]
    assert batch.dreamer_N.tolist() == [0, 0, 0, 2]
    assert batch.example_N.tolist() == [0, 1, 1, 2]
    assert batch.tokens == 9 and not batch.packed
    assert batch.attention().tolist() == batch.segment_BT.tolist()


def test_an_id_that_equals_padding_is_read() -> None:
    """Some tokenizers end a text with the token that they pad with."""
    batch = collate([Example((7, 0), (True,), gold=True), A], [0, 0], PADDED)
    assert batch.attention().tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.labels_N.tolist() == [0, 13] and batch.tokens == 5


def test_packed() -> None:
    batch = collate([A, C, B, D], [0, 2, 1, 2], PACKED)
    assert batch.input_ids_BT.tolist() == [[11, 12, 13, 31, 32, 33, 34, 35], [21, 22, 23, 24, 41, 42, 0, 0]]
    assert batch.segment_BT.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 2, 2, 0, 0]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 1, 0, 0]]
    assert batch.rows_N.tolist() == [1, 4, 5, 6, 8, 9, 12]
    assert batch.example_N.tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert batch.packed and batch.tokens == 14


def test_packed_attention_is_causal_and_stays_within_an_example() -> None:
    batch = collate([A, B], [0, 0], PACKED)
    mask = batch.attention()
    assert mask.shape == (1, 1, 7, 7) and mask.dtype == bool
    expected = np.zeros((7, 7), dtype=bool)
    expected[:3, :3], expected[3:, 3:] = np.tri(3), np.tri(4)
    assert (mask[0, 0] == expected).all()


def test_no_position_is_without_anything_to_attend_to() -> None:
    """A row of a softmax in which all is forbidden would be undefined."""
    assert collate([A, B, D], [0, 0, 0], PACKED).attention().any(-1).all()


def test_an_example_longer_than_a_sequence_has_one_of_its_own() -> None:
    long = Example(tuple(range(1, 11)), (True,) * 9, gold=True, dreamer=0)
    batch = collate([A, long, D], [0, 0, 0], PACKED)
    assert batch.input_ids_BT.tolist() == [[11, 12, 13, 41, 42, 0, 0, 0, 0, 0], list(range(1, 11))]


def by_hand(examples: list[Example], layout: list[list[int]], pad_id: int) -> tuple[list, list, list, list]:
    """Ids, positions and segments token by token, and (place, label, dreamer, example) of each trained token."""
    width = max(sum(len(examples[n]) for n in sequence) for sequence in layout)
    ids, positions, segments, columns = [], [], [], []
    for place, sequence in enumerate(layout):
        rows: list[tuple[int, int, int]] = []
        for segment, n in enumerate(sequence, 1):
            for t, token in enumerate(examples[n].ids):
                if t < len(examples[n].trained) and examples[n].trained[t]:
                    label = examples[n].ids[t + 1] if examples[n].gold else IGNORE
                    columns.append((place * width + len(rows), label, examples[n].dreamer, n))
                rows.append((token, t, segment))
        rows += [(pad_id, 0, 0)] * (width - len(rows))
        for grid, column in zip((ids, positions, segments), zip(*rows, strict=True), strict=True):
            grid.append(list(column))
    return ids, positions, segments, columns


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEN, st.booleans(), st.integers(0, 2**31))
def test_every_token_is_where_it_would_be_laid_by_hand(shapes: list[tuple[int, int]], packing: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    examples = [
        Example(
            tuple(generator.integers(0, 99, size).tolist()),
            tuple(generator.random(size - 1) < 0.6),
            gold=dreamer != 2,
            dreamer=dreamer,
        )
        for size, dreamer in shapes
    ]
    layout = pack([size for size, _ in shapes], 8) if packing else [[n] for n in range(len(shapes))]
    batch = collate(examples, [n % 3 for n in range(len(shapes))], Collation(7, 8, packing))
    ids, positions, segments, columns = by_hand(examples, layout, 7)
    assert (batch.input_ids_BT.tolist(), batch.position_ids_BT.tolist()) == (ids, positions)
    assert batch.segment_BT.tolist() == segments
    found = zip(*(a.tolist() for a in (batch.rows_N, batch.labels_N, batch.dreamer_N, batch.example_N)), strict=True)
    assert list(found) == columns
    assert batch.source_N.tolist() == [n % 3 for *_, n in columns]
    arrays = {name: array.dtype for name, array in vars(batch).items() if isinstance(array, np.ndarray)}
    assert {name for name, dtype in arrays.items() if dtype != np.int64} == {"segment_BT"}
    assert arrays["segment_BT"] == np.int32 and batch.digests == tuple(example.digest for example in examples)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEN)
def test_packing_changes_no_trained_token(shapes: list[tuple[int, int]]) -> None:
    examples = [
        Example(tuple(range(100 * n, 100 * n + size)), (True,) * (size - 1), dreamer == 0, dreamer, weight=1 + n / 4)
        for n, (size, dreamer) in enumerate(shapes, 1)
    ]
    sources = [dreamer for _, dreamer in shapes]
    padded, packed = (collate(examples, sources, collation) for collation in (PADDED, PACKED))
    assert tokens(padded) == tokens(packed) and padded.tokens == packed.tokens
    assert (packed.segment_BT > 0).sum(1).max() <= max(8, *(size for size, _ in shapes))
    for batch in (padded, packed):
        for teacher in (1, 2):
            for dreams_only in (False, True):
                check_view(batch, teacher, dreams_only)


def check_view(batch: Batch, teacher: int, dreams_only: bool) -> None:
    view, places = batch.heard_by(teacher, dreams_only=dreams_only)
    wanted = [d == teacher or (d == 0 and not dreams_only) for d in batch.dreamer_N.tolist()]
    assert places.tolist() == np.flatnonzero(wanted).tolist()
    only = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    only |= {name: array[places] for name, array in only.items() if name.endswith("_N")}
    assert tokens(view) == tokens(Batch(**only))
    width = batch.input_ids_BT.shape[1]
    assert len(view.input_ids_BT) == len(set((batch.rows_N[places] // width).tolist()))


def test_a_teacher_hears_all_but_the_other_ones_dreams() -> None:
    batch = collate([C, A, D, B], [2, 0, 2, 1], PADDED)
    first, places = batch.heard_by(1)
    assert first.input_ids_BT[:, 0].tolist() == [31, 11, 21] and places.tolist() == [0, 1, 2, 3, 5, 6]
    second, places = batch.heard_by(2)
    assert second.input_ids_BT[:, 0].tolist() == [11, 41, 21] and places.tolist() == [3, 4, 5, 6]
    assert second.rows_N.tolist() == [1, 5, 10, 11]


def test_a_dreamer_that_teaches_nothing_else_hears_only_its_dreams() -> None:
    batch = collate([C, A, D, B], [2, 0, 2, 1], PADDED)
    view, places = batch.heard_by(2, dreams_only=True)
    assert view.input_ids_BT.tolist() == [[41, 42, 0, 0, 0]] and places.tolist() == [4]
    nothing, places = collate([A, C], [0, 2], PADDED).heard_by(2, dreams_only=True)
    assert nothing.input_ids_BT.shape == (0, 5) and len(places) == len(nothing.rows_N) == 0


@pytest.mark.parametrize("collation", [PADDED, PACKED])
def test_nothing_trained_is_an_empty_batch_of_the_right_shape(collation: Collation) -> None:
    batch = collate([Example((5, 6), (False,), gold=True)], [0], collation)
    assert batch.rows_N.shape == (0,) and batch.rows_N.dtype == np.int64 and batch.tokens == 2


@pytest.mark.parametrize("collation", [PADDED, PACKED])
def test_chosen_tokens_bring_their_sequences_along(collation: Collation) -> None:
    batch = collate([A, C, B, D], [0, 2, 1, 2], collation)
    view, places = batch.select(np.isin(batch.example_N, [0, 3]))
    assert batch.example_N[places].tolist() == view.example_N.tolist() == [0, 3]
    assert view.digests == batch.digests and view.labels_N.tolist() == batch.labels_N[places].tolist()
    assert view.input_ids_BT.shape[0] == 2
    width = batch.input_ids_BT.shape[1]
    for row, place in zip(view.rows_N, places, strict=True):
        (b, t), (old, column) = divmod(int(row), width), divmod(int(batch.rows_N[place]), width)
        assert t == column and (view.input_ids_BT[b] == batch.input_ids_BT[old]).all()
        assert (view.segment_BT[b] == batch.segment_BT[old]).all()
    nothing, places = batch.select(np.zeros(len(batch.rows_N), dtype=bool))
    assert len(nothing.input_ids_BT) == len(places) == 0
