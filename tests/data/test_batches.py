"""The batch of a step is a function of the step, every row comes once a pass, and the sources keep their shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.data.batches import SOURCES, Batch, Batches, Collation
from ladder.data.examples import Example
from ladder.errors import ManifestError

SHARES = {"new": 0.5, "replay": 0.1, "dreams": 0.4}
EXAMPLES = settings(max_examples=100, deadline=None, derandomize=True)


def pool(source: str, size: int) -> list[Example]:
    """Examples whose first id says which source and which row they are."""
    first = 1000 * (1 + SOURCES.index(source))
    dreamer = int(source in ("dreams", "written"))
    return [Example((first + n, 5, 6), (True, True), gold=not dreamer, dreamer=dreamer) for n in range(size)]


def build(sizes: dict[str, int], batch_size: int = 10, accumulation: int = 1, **changes: Any) -> Batches:
    pools = {source: pool(source, size) for source, size in sizes.items()}
    settings = {"shares": SHARES, "seed": 0, "collation": Collation(0, 8), **changes}
    return Batches(pools, batch_size=batch_size, accumulation=accumulation, **settings)


def rows(parts: tuple[Batch, ...]) -> list[int]:
    return [int(first) for part in parts for first in part.input_ids_BT[:, 0]]


def same(one: tuple[Batch, ...], other: tuple[Batch, ...]) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in a.__dataclass_fields__
    )


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    sizes = {"new": 7, "replay": 3, "dreams": 5}
    asked = build(sizes)
    forwards = [asked(step) for step in range(20)]
    assert all(same(build(sizes)(step), forwards[step]) for step in reversed(range(20)))
    assert len({tuple(rows(parts)) for parts in forwards}) > 15


def test_another_seed_gives_another_order() -> None:
    one, other = (build({"new": 40}, seed=seed) for seed in (0, 1))
    assert rows(one(0)) != rows(other(0))


def test_each_pass_over_a_pool_holds_each_row_once_in_an_order_of_its_own() -> None:
    batches = build({"new": 7, "dreams": 12}, batch_size=5)
    taken = batches.rows_by_source()
    for source, size in (("new", 7), ("dreams", 12)):
        first = 1000 * (1 + SOURCES.index(source))
        seen = [row for step in range(30) for row in rows(batches(step)) if first <= row < first + 1000]
        assert len(seen) == 30 * taken[source]
        passes = [seen[start : start + size] for start in range(0, len(seen) - size + 1, size)]
        assert all(sorted(one) == list(range(first, first + size)) for one in passes)
        assert len(set(map(tuple, passes))) > 1


@pytest.mark.parametrize("grouped", [False, True])
def test_each_round_reads_its_own_pool_from_its_beginning(grouped: bool) -> None:
    """The whole run, and a round alone, as it is known when it begins, give the same steps."""
    own = pool("written", 60)
    rounds = {0: own[:20], 7: own[20:40], 14: own[40:]}
    told = {"shares": SHARES | {"written": 0.5}, "group_by_length": grouped}
    whole = replace(build({"new": 7, "written": 60}, 9, **told), rounds=rounds)
    assert whole.rows_by_source() == {"new": 5, "written": 4}
    for start, some in rounds.items():
        alone = build({"new": 7}, 9, **told).in_round(start, some)
        for step in range(start, start + 7):
            assert same(alone(step), whole(step))
        firsts = [{row for row in rows(alone(start + n)) if row >= 4000} for n in range(7)]
        # 20 rows last for five steps of four, and then come again.
        assert set().union(*firsts[:5]) == {example.ids[0] for example in some} >= firsts[5]
        assert [len(alone(start + n)[0].again & set(range(9))) for n in (0, 4, 5)] == again(alone, start)


def again(batches: Batches, start: int) -> list[int]:
    """Rows that were read before: of 7 new ones at 5 a step, and of 20 written ones at 4."""
    return [max(0, min(5, 5 * (start + n + 1) - 7)) + (4 if n >= 5 else 0) for n in (0, 4, 5)]


def test_a_pool_smaller_than_its_part_of_a_batch_repeats_evenly() -> None:
    assert sorted(Counter(rows(build({"new": 3}, batch_size=9)(0))).values()) == [3, 3, 3]


def test_every_token_knows_its_source() -> None:
    (batch,) = build({"new": 7, "replay": 3, "dreams": 5})(3)
    firsts = batch.input_ids_BT[batch.rows_N // batch.input_ids_BT.shape[1], 0]
    assert (batch.source_N == firsts // 1000 - 1).all()
    assert (batch.dreamer_N == (batch.source_N == SOURCES.index("dreams"))).all()


@pytest.mark.parametrize(
    ("sizes", "batch_size", "shares", "expected"),
    [
        ({"new": 9, "replay": 9, "dreams": 9}, 10, SHARES, {"new": 5, "replay": 1, "dreams": 4}),
        ({"new": 9, "replay": 9, "dreams": 9}, 48, SHARES, {"new": 24, "replay": 5, "dreams": 19}),
        ({"new": 9, "dreams": 9}, 9, SHARES, {"new": 5, "dreams": 4}),
        ({"new": 9}, 4, SHARES, {"new": 4}),
        ({"new": 9, "replay": 9, "dreams": 9}, 3, SHARES, {"new": 1, "replay": 1, "dreams": 1}),
        ({"new": 9, "replay": 9}, 8, {"new": 50.0, "replay": 0.001, "dreams": 9.0}, {"new": 7, "replay": 1}),
    ],
)
def test_rows_by_source(sizes: dict, batch_size: int, shares: dict, expected: dict) -> None:
    batches = build(sizes, batch_size, shares=shares)
    assert batches.rows_by_source() == expected
    found = Counter(SOURCES[row // 1000 - 1] for row in rows(batches(2)))
    assert found == expected


positive = st.floats(1e-6, 1e6)


@EXAMPLES
@given(st.integers(4, 60), st.sets(st.sampled_from(SOURCES), min_size=1), positive, positive, positive, positive)
def test_rows_sum_to_the_batch_each_source_has_one_and_none_is_far_from_its_share(
    size: int, present: set[str], new: float, replay: float, dreams: float, written: float
) -> None:
    shares = {"new": new, "replay": replay, "dreams": dreams, "written": written}
    found = build(dict.fromkeys(sorted(present), 2), size, shares=shares).rows_by_source()
    assert found.keys() == present and sum(found.values()) == size and min(found.values()) >= 1
    total = sum(shares[source] for source in present)
    if all(size * shares[source] / total >= 1 for source in present):
        assert all(abs(found[source] - size * shares[source] / total) < 1 for source in present)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("accumulation", [2, 3, 5])
def test_micro_batches_hold_the_rows_of_the_whole_batch(accumulation: int, packing: bool) -> None:
    sizes, collation = {"new": 7, "replay": 3, "dreams": 5}, Collation(0, 8, packing)
    whole = build(sizes, 15, 1, collation=collation)
    split = build(sizes, 15, accumulation, collation=collation)
    for step in range(4):
        parts = split(step)
        assert len(parts) == accumulation
        sequences = [len(part.input_ids_BT) for part in parts]
        assert sum(sequences) == len(whole(step)[0].input_ids_BT), "a step is packed as a whole"
        assert min(sequences) >= 1 and max(sequences) == -(-sum(sequences) // accumulation)
        assert Counter(tokens(parts)) == Counter(tokens(whole(step)))


def tokens(parts: tuple[Batch, ...]) -> list[tuple[int, ...]]:
    found = []
    for part in parts:
        ids, positions = part.input_ids_BT.reshape(-1), part.position_ids_BT.reshape(-1)
        starts = part.rows_N - positions[part.rows_N]
        columns = (ids[starts], ids[part.rows_N], part.labels_N, part.source_N)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return found


LENGTHS = {"new": (600, 150.0), "replay": (90, 60.0), "dreams": (400, 48.0)}
"""Rows and median length of each source; the spread is that of instruction data, sigma 0.8 in the logarithm."""


@cache
def realistic() -> dict[str, list[Example]]:
    generator = np.random.default_rng(0)
    pools = {}
    for source, (size, median) in LENGTHS.items():
        lengths = np.clip(generator.lognormal(np.log(median), 0.8, size), 8, 512).astype(int).tolist()
        pools[source] = [
            Example((n, *[5] * (length - 1)), (True,) * (length - 1), True) for n, length in enumerate(lengths)
        ]
    return pools


def padded(batches: Batches, steps: int = 64) -> tuple[float, int]:
    """Positions for each token, and the most positions in a micro-batch."""
    parts = [part for step in range(steps) for part in batches(step)]
    places = [part.input_ids_BT.size for part in parts]
    return sum(places) / sum(part.tokens for part in parts), max(places)


def dataset(**changes: Any) -> Batches:
    told = {"accumulation": 1, "collation": Collation(0, 512, changes.pop("packing", False)), **changes}
    return Batches(realistic(), SHARES, 48, **{"seed": 0, **told})


def test_rows_of_similar_length_share_a_micro_batch() -> None:
    whole, peak = padded(dataset())
    split, largest = padded(dataset(accumulation=4))
    assert whole > 3.8 and split < 1.4
    assert largest < 0.12 * peak


def test_grouping_by_length_saves_most_of_the_padding() -> None:
    whole, _ = padded(dataset())
    grouped, _ = padded(dataset(group_by_length=True))
    split, _ = padded(dataset(group_by_length=True, accumulation=4))
    assert grouped < 0.45 * whole and split < 1.15
    packed, _ = padded(dataset(packing=True))
    both, _ = padded(dataset(packing=True, group_by_length=True))
    assert packed < 1.1 and packed < both, "the two together are refused by the manifest, for this reason"


def test_grouping_gives_each_pass_each_row_once() -> None:
    batches = dataset(group_by_length=True)
    for source, rows in batches.rows_by_source().items():
        size = len(realistic()[source])
        seen = [n for step in range(200) for n in batches._indices(source, rows, step).tolist()]
        passes = [seen[start : start + size] for start in range(0, len(seen) - size + 1, size)]
        assert len(passes) >= 6 and all(sorted(one) == list(range(size)) for one in passes)


def test_grouping_mixes_rows_of_similar_rank() -> None:
    """Over a window the median lengths of the sources rise and fall together."""
    batches = dataset(group_by_length=True)
    medians = [
        [np.median(batches._lengths[source, 0][batches._indices(source, rows, step)]) for step in range(32)]
        for source, rows in batches.rows_by_source().items()
    ]
    assert np.corrcoef(medians)[0, 2] > 0.9 and np.corrcoef(medians)[0, 1] > 0.5
    assert abs(np.corrcoef(medians[0], range(32))[0, 1]) < 0.5, "but not from short to long"


def test_grouping_is_a_function_of_the_step_and_the_seed() -> None:
    forwards = [dataset(group_by_length=True)(step) for step in range(40)]
    assert all(same(dataset(group_by_length=True)(step), forwards[step]) for step in reversed(range(40)))
    assert not same(dataset(group_by_length=True, seed=1)(0), forwards[0])


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 1), (3, 4)])
def test_a_batch_with_too_few_rows_is_refused(batch_size: int, accumulation: int) -> None:
    with pytest.raises(ManifestError, match=f"{batch_size} rows cannot be divided") as caught:
        build({"new": 2, "replay": 2, "dreams": 2}, batch_size, accumulation)
    assert caught.value.where == "training_params.batch_size"
    assert caught.value.remedy == f"at least {max(3, accumulation)}"
