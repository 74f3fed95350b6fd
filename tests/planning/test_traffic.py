"""Bytes counted without a model are those that models send and caches store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ladder.data.batches import Batch, Batches, Collation, dealt
from ladder.data.examples import Example
from ladder.planning.pools import Reading
from ladder.planning.traffic import SignalPrice, TeacherTraffic, held_on_disk, price_signals
from ladder.teachers.cache import CacheKey, CacheSettings, open_cache, shards
from ladder.teachers.teacher import recalled
from ladder.teachers.wire import Rows, Signal, TopK, encode, encode_topk

KEY = CacheKey("teacher", "tokenizer", "hidden", "float32")
HIDDEN, K, STEPS = 6, 5, 7


def example(number: int, dreamer: int = 0) -> Example:
    length = 4 + number % 5
    return Example((number, *range(length)), (False,) + (True,) * (length - 1), gold=not dreamer, dreamer=dreamer)


@pytest.fixture
def batches() -> Batches:
    pools = {"new": [example(n) for n in range(20)], "dreams": [example(100 + n, 1 + n % 2) for n in range(6)]}
    return Batches(pools, {"new": 0.7, "dreams": 0.3}, 6, 2, 0, Collation(0, 24, packing=True))


def hidden(view: Batch) -> Rows:
    return encode(torch.zeros(len(view.rows_N), HIDDEN))


def truncated(view: Batch) -> Rows:
    count = len(view.rows_N)
    wide, narrow = torch.zeros(count, K), torch.zeros(count)
    return encode_topk(TopK(wide, wide.int(), narrow, narrow, narrow, narrow))


@pytest.mark.parametrize("store", ["memory", "disk"])
@pytest.mark.parametrize(("say", "row"), [(hidden, 4 * HIDDEN), (truncated, 8 * K + 16)])
@pytest.mark.parametrize("limit", [2**30, 900])
@pytest.mark.parametrize("dreams_only", [False, True])
def test_a_run_is_priced_to_the_byte(batches, tmp_path, store, say, row, limit, dreams_only) -> None:  # type: ignore
    cache = open_cache(CacheSettings(store, limit, tmp_path), KEY)
    kind = "topk" if say is truncated else "hidden"
    sent = 0
    for step in range(STEPS):
        for batch in batches(step):
            heard, places = batch.heard_by(1, dreams_only=dreams_only)
            if len(places):
                sent += Signal(kind, "float32", recalled(heard, say, cache), places).nbytes
    price = price_signals(batches, STEPS, [TeacherTraffic(1, dreams_only, row, kind, store, limit, KEY.text)])
    found = cache.statistics
    assert (price.wire_bytes, price.hits, price.misses) == (sent, found.hits, found.misses)
    # The numbers of columns in a shard's header may be longer by some digits.
    assert price.cache_bytes == pytest.approx(found.stored_bytes, rel=0.01)


def test_two_voices_add_up_and_one_with_a_cold_cache_reads_everything(batches: Batches) -> None:
    one, two = (price_signals(batches, STEPS, [TeacherTraffic(n, False, 24)]) for n in (1, 2))
    both = price_signals(batches, STEPS, [TeacherTraffic(1, False, 24), TeacherTraffic(2, False, 24)])
    assert both.wire_bytes == one.wire_bytes + two.wire_bytes
    assert one.cache_bytes == 0 and one.read_share == 1.0


def test_what_an_earlier_run_left_is_neither_read_nor_stored(batches: Batches) -> None:
    first = TeacherTraffic(1, False, 24, limit=2**30)
    cold = price_signals(batches, STEPS, [first])
    warm = price_signals(batches, STEPS, [replace(first, stored=0, hits=0, misses=0)])
    assert cold.cache_bytes > 0 and cold.misses > 0
    assert (warm.cache_bytes, warm.misses) == (0, 0)


def test_what_lies_on_disk_is_held_and_a_foreign_shard_is_not(batches: Batches, tmp_path: Path) -> None:
    cache = open_cache(CacheSettings("disk", 2**30, tmp_path), KEY)
    for batch in batches(0):
        recalled(batch, hidden, cache)
    folder = tmp_path / KEY.name
    (folder / "torn.safetensors").write_bytes(b"no shard")
    held, taken = held_on_disk(shards(folder, KEY.text))
    assert held == {digest for batch in batches(0) for digest in batch.digests}
    assert taken == cache.statistics.stored_bytes
    assert held_on_disk(shards(folder, "another key")) == (set(), 0)
    assert held_on_disk(shards(tmp_path / "nowhere", KEY.text)) == (set(), 0)


def test_a_long_run_is_extrapolated(batches: Batches) -> None:
    whole = price_signals(batches, 60, [TeacherTraffic(1, False, 24, limit=2**30)])
    part = price_signals(batches, 60, [TeacherTraffic(1, False, 24, limit=2**30)], most=3)
    for name in ("wire_bytes", "cache_bytes", "tokens", "trained"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=0.2), name


def test_the_largest_micro_batch_is_kept(batches: Batches) -> None:
    price: SignalPrice = price_signals(batches, STEPS, [])
    grids = [(batch.input_ids_BT.size, len(batch.rows_N)) for step in range(STEPS) for batch in batches(step)]
    assert (price.grid, price.grid_trained) == max(grids)
    assert price.trained == sum(count for _, count in grids) and np.isfinite(price.tokens)


def test_it_writes_nothing(batches: Batches, tmp_path: Path) -> None:
    price_signals(batches, STEPS, [TeacherTraffic(1, False, 24, limit=2**30, key=KEY.text)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_receives_its_own_part_of_a_step(batches: Batches, packing: bool, ranks: int) -> None:
    """At two ranks at most six tenths of what the whole step takes, where a step has more than a few sequences."""
    pools = {"new": [example(n) for n in range(200)], "dreams": batches.pools["dreams"]}
    rows = 60 if packing or ranks > 2 else 12
    split = Batches(pools, {"new": 0.7, "dreams": 0.3}, rows, 2, 0, Collation(0, 24, packing=packing), ranks=ranks)
    traffics = [TeacherTraffic(number, False, 4 * HIDDEN) for number in (1, 2)]
    most, whole = 0.0, []
    for step in range(STEPS):
        received = [
            sum(
                (4 * HIDDEN + 8) * len(batch.heard_by(number)[1])  # as ``Signal.nbytes``
                for batch in share
                for number in (1, 2)
            )
            for share in dealt(split(step), ranks)
        ]
        most, whole = max(most, max(received)), [*whole, sum(received)]
        assert max(received) <= (0.6 if ranks == 2 else 0.42) * sum(received)
    price = price_signals(split, STEPS, traffics, ranks=ranks)
    assert price.rank_largest == most and price.largest == max(whole) and price.wire_bytes == sum(whole)
    one = price_signals(split, STEPS, [replace(each, reading=Reading()) for each in traffics])
    assert one.rank_largest == one.largest == price.largest and one.wire_bytes == price.wire_bytes
