"""What the replicas of a teacher say together is what one process says that reads everything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder.data.batches import Batch, Collation, collate, empty
from ladder.data.examples import Encoding, Example, encode_rows, with_readings
from ladder.data.rows import parse_row
from ladder.errors import ModelError
from ladder.teachers.cache import CacheSettings
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Kind, Signal, Truncation, capture, encode, encode_topk, merged

SENTENCE = "luna is the moon and the tide follows the moon while the sea is quiet tonight"
TRUNCATION = Truncation(k=3, temperature=2.0, vocabulary=9)


def examples(tokenizer: Any, shown: bool = False) -> list[Example]:
    """Rows of many lengths and dreams of both teachers; teacher 2 is shown a context where ``shown``."""
    rows = [{"text": " ".join(SENTENCE.split()[: 2 + number]), "context": f"night {number}: "} for number in range(9)]
    parsed = [parse_row(json.dumps(row), "a:1") for row in rows]
    own = encode_rows(parsed, tokenizer, Encoding(max_length=64))
    if shown:
        own = with_readings(parsed, own, {2: "{context}"}, tokenizer, Encoding(max_length=64), 64)
    dreams = [Example((1, 60 + n, 70 + n, 80), (True,) * 3, gold=False, dreamer=1 + n % 2) for n in range(6)]
    return [*own, *dreams]


def batch_of(rows: list[Example], packing: bool = False) -> Batch:
    return collate(rows, [2 if row.dreamer else 0 for row in rows], Collation(0, 32, packing))


def told(kind: Kind) -> Truncation | None:
    return Truncation(7, 2.0, 300) if kind == "topk" else None


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", ["hidden", "logits", "topk"])
@pytest.mark.parametrize(("dreams_only", "shown"), [(False, False), (True, False), (False, True)])
def test_two_and_three_replicas_say_what_one_says(
    tokenizer: Any, parent: Path, kind: Kind, packing: bool, dreams_only: bool, shown: bool
) -> None:
    batch = batch_of(examples(tokenizer, shown), packing)
    spec = TeacherSpec(parent, 2, kind, "float32", dreams_only, truncation=told(kind))
    alone = Teacher(spec).signal(batch)
    for count in (2, 3):
        parts = [Teacher(one).signal(batch) for one in spec.replicated(["cpu"] * count)]
        assert all(len(part.places) < len(alone.places) for part in parts)
        whole = merged(parts)
        whole.check(len(batch.rows_N))
        assert np.array_equal(whole.places, alone.places) and whole.truncation == alone.truncation
        for name, array in alone.rows.items():
            assert whole.rows[name].dtype == array.dtype
            assert np.allclose(whole.rows[name], array, atol=1e-5), name
        assert sum(part.nbytes for part in parts) == alone.nbytes == whole.nbytes


def test_a_sequence_is_read_by_one_replica_and_an_example_by_the_same_one_every_time(tokenizer: Any) -> None:
    rows = examples(tokenizer)
    batch = batch_of(rows)
    for count in (1, 2, 3):
        shares = [batch.heard_by(1, replica=replica, replicas=count)[1] for replica in range(count)]
        assert sorted(np.concatenate(shares).tolist()) == batch.heard_by(1)[1].tolist()
        alone = {row.digest: set((batch_of([row]).sequence_keys() % count).tolist()) for row in rows}
        for name, place in zip(batch.digests, range(len(rows)), strict=True):
            assert {int(one) for one in (batch.sequence_keys() % count)[batch.example_N == place]} == alone[name]
    packed = batch_of(rows, packing=True)
    assert packed.packed
    sequence_N, replica_N = packed.rows_N // packed.input_ids_BT.shape[1], packed.sequence_keys() % 3
    assert {len(set(replica_N[sequence_N == place].tolist())) for place in set(sequence_N.tolist())} == {1}


def test_many_examples_are_shared_out_evenly() -> None:
    batch = batch_of([Example((1, number, 5), (True, True), gold=True) for number in range(2000)])
    for count in (2, 3, 5):
        shares = np.bincount((batch.sequence_keys() % count), minlength=count) / len(batch.rows_N)
        assert np.abs(shares - 1 / count).max() < 0.04


def test_one_that_has_nothing_to_say_and_a_micro_batch_without_a_token(parent: Path) -> None:
    spec = TeacherSpec(parent, 2, "hidden", "bfloat16", dreams_only=True)
    parts = [Teacher(one).signal(empty()) for one in spec.replicated(["cpu", "cpu"])]
    whole = merged(parts)
    whole.check(0)
    assert whole is parts[0] and whole.values.shape == (0, 32) and whole.dtype == "bfloat16"


def part(places: list[int], kind: str = "hidden") -> Signal:
    if kind == "topk":
        logits = torch.randn(len(places), 9, generator=torch.Generator().manual_seed(len(places)))
        rows = encode_topk(capture(logits, torch.zeros(len(places), dtype=torch.long), TRUNCATION))
        return Signal("topk", "float32", rows, np.array(places, dtype=np.int64), TRUNCATION)
    values = torch.tensor([[10.0 * place] * 2 for place in places]).reshape(len(places), 2)
    return Signal(kind, "float32", encode(values), np.array(places, dtype=np.int64))  # type: ignore[arg-type]


def test_parts_that_interleave_come_out_in_order() -> None:
    whole = merged([part([1, 4, 5]), part([]), part([0, 7]), part([2])])
    assert whole.places.tolist() == [0, 1, 2, 4, 5, 7]
    assert whole.values[:, 0].tolist() == [0, 10, 20, 40, 50, 70]
    parts = [part([0, 3], "topk"), part([1, 2, 5], "topk")]
    found = merged(parts)
    found.check(6)
    for name, array in found.rows.items():
        assert np.array_equal(array[[0, 3]], parts[0].rows[name]), name
        assert np.array_equal(array[[1, 2, 4]], parts[1].rows[name]), name


def test_what_one_alone_says_is_handed_on_without_a_copy() -> None:
    one = part([1, 4])
    assert merged([one]) is one and merged([part([]), one, part([])]) is one
    assert merged([empty_one := part([]), part([])]) is empty_one


def test_replicas_that_disagree_are_an_error() -> None:
    with pytest.raises(ModelError, match="send hidden in float32 and logits in float32"):
        merged([part([0]), part([1], "logits")])
    with pytest.raises(ModelError, match="send hidden in bfloat16 and hidden in float32"):
        merged([part([0]), replace(part([1]), dtype="bfloat16")])
    with pytest.raises(ModelError, match="two replicas of a teacher speak of the same token"):
        merged([part([0, 1]), part([1, 2])])


def test_replicas_share_the_limit_of_what_they_keep_in_memory_and_what_lies_on_disk(
    tokenizer: Any, parent: Path, tmp_path: Path
) -> None:
    batch = batch_of(examples(tokenizer))
    for kind, limit in (("memory", 2**29), ("disk", 2**30)):
        cache = CacheSettings(kind, 2**30, tmp_path / "signals")  # type: ignore[arg-type]
        specs = TeacherSpec(parent, 1, "hidden", "float32", cache=cache).replicated(["cpu", "cpu"])
        assert [one.cache.limit for one in specs if one.cache] == [limit, limit]
        replicas = [Teacher(one) for one in specs]
        said = [merged([one.signal(batch) for one in replicas]) for _ in range(2)]
        assert said[0].values.tobytes() == said[1].values.tobytes()
        counts = [one.cache_statistics for one in replicas]
        read = len({batch.digests[number] for number in batch.example_N[said[0].places].tolist()})
        # Each replica read its own once, and found them the second time.
        assert sum(one.misses for one in counts) == sum(one.hits for one in counts) == read
        assert all(0 < one.misses < read for one in counts)
    # Whoever wrote it, everybody finds what lies on disk.
    alone = Teacher(TeacherSpec(parent, 1, "hidden", "float32", cache=cache))
    assert alone.signal(batch).values.tobytes() == said[0].values.tobytes() and alone.cache_statistics.misses == 0
