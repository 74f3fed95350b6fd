"""Packing and splitting a step: nothing lost, nothing too wide, and the largest micro-batch as small as can be."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.data.batches import micro_batches, pack, split

EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)
SOME = st.lists(st.integers(1, 20), min_size=1, max_size=9)


def area(widths: list[int], ends: tuple[int, ...]) -> int:
    return max((stop - start) * widths[start] for start, stop in pairwise((0, *ends, len(widths))))


@EXAMPLES
@given(SOME, st.integers(1, 9))
def test_no_other_split_has_a_smaller_largest_part(lengths: list[int], parts: int) -> None:
    widths, parts = sorted(lengths, reverse=True), min(parts, len(lengths))
    counts = split(widths, parts)
    assert len(counts) == parts and min(counts) >= 1 and sum(counts) == len(widths)
    ends = tuple(np.cumsum(counts)[:-1].tolist())
    assert area(widths, ends) == min(area(widths, cuts) for cuts in combinations(range(1, len(widths)), parts - 1))


@EXAMPLES
@given(SOME, st.integers(1, 12), st.sampled_from([None, 20, 30]))
def test_each_row_is_in_one_micro_batch(lengths: list[int], parts: int, max_length: int | None) -> None:
    found = micro_batches(lengths, parts, max_length)
    assert sorted(number for part in found for number in part) == list(range(len(lengths)))
    assert all(part and part == sorted(part) for part in found)
    sequences = len(lengths) if max_length is None else len(pack(lengths, max_length))
    assert len(found) == min(parts, sequences)


def test_equal_rows_are_split_evenly() -> None:
    assert split([1] * 6, 3) == [2, 2, 2] and split([7] * 9, 4) == [3, 3, 2, 1]


def test_for_ranks_no_part_is_left_with_little() -> None:
    assert split([7] * 17, 4) == [5, 5, 5, 2] and split([7] * 17, 4, even=True) == [4, 4, 4, 5]
    assert split([9, 1, 1, 1, 1, 1, 1], 2, even=True) == [1, 6] and split([5, 5], 2, even=True) == [1, 1]


@EXAMPLES
@given(SOME, st.integers(1, 9))
def test_an_even_split_has_no_larger_largest_part(lengths: list[int], parts: int) -> None:
    widths, parts = sorted(lengths, reverse=True), min(parts, len(lengths))
    greedy, even = split(widths, parts), split(widths, parts, even=True)
    assert len(even) == parts and min(even) >= 1 and sum(even) == len(widths)
    ends, others = (tuple(np.cumsum(counts)[:-1].tolist()) for counts in (greedy, even))
    assert area(widths, others) == area(widths, ends)


def test_one_micro_batch_keeps_the_rows_in_order() -> None:
    assert micro_batches([3, 9, 1, 5], 1, None) == micro_batches([3, 9, 1, 5], 1, 10) == [[0, 1, 2, 3]]


def test_long_rows_are_few_and_come_first() -> None:
    assert micro_batches([10, 100, 10, 10, 50, 50, 10], 3, None) == [[1], [4, 5], [0, 2, 3, 6]]


def test_packed_sequences_of_similar_length_share_a_micro_batch() -> None:
    """8 and 2 fill a sequence, 5 and 5 too; 9 and 3 do not fit together."""
    assert micro_batches([8, 2, 5, 5, 3, 9], 2, 10) == [[0, 1, 2, 3], [4, 5]]


@EXAMPLES
@given(SOME)
def test_a_micro_batch_packed_alone_has_the_sequences_that_it_had_in_the_step(lengths: list[int]) -> None:
    whole = pack(lengths, 20)
    for part in micro_batches(lengths, 3, 20):
        again = [[part[number] for number in sequence] for sequence in pack([lengths[n] for n in part], 20)]
        assert again == [sequence for sequence in whole if sequence[0] in part]


@EXAMPLES
@given(SOME)
def test_packing_holds_each_row_once_and_nothing_too_wide(lengths: list[int]) -> None:
    layout = pack(lengths, 15)
    assert sorted(number for sequence in layout for number in sequence) == list(range(len(lengths)))
    assert all(len(one) == 1 or sum(lengths[number] for number in one) <= 15 for one in layout)


def test_the_longest_rows_are_placed_first() -> None:
    """In the order given, 4 and 4 would share a sequence, and no 6 would find room beside them."""
    assert pack([4, 4, 6, 6], 10) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_decreasing_order_packs_realistic_rows_almost_fully(seed: int) -> None:
    lengths = np.clip(np.random.default_rng(seed).lognormal(4.5, 0.8, 48), 8, 512).astype(int).tolist()
    fewest = -(-sum(lengths) // 512)
    assert len(pack(lengths, 512)) <= fewest + 1
