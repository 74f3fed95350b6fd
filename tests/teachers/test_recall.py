"""A teacher with a cache reads an example once, and says bit by bit what it said before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ladder.data.batches import IGNORE, Batch, Collation, collate
from ladder.data.examples import Example
from ladder.distill import Objective, RoutingSettings, jensen_shannon
from ladder.distill.divergence import js_bounds
from ladder.distill.fused import FusedLoss
from ladder.distill.fusion import FusionSettings
from ladder.distill.student import StudentLogits
from ladder.errors import ModelError
from ladder.models.load import load_model
from ladder.teachers import teacher
from ladder.teachers import teacher as recall
from ladder.teachers.cache import CacheSettings, CacheStatistics
from ladder.teachers.source import HiddenSource, LogitsSource, SignalSource, TeacherHead, TopKSource
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Kind, Rows, Signal, Truncation
from ladder.train.loss import Loss
from ladder.train.worth import Worth

GIB = 2**30
V = 300
ALL = Truncation(V, 2.0, V)
SOME = Truncation(16, 2.0, V)
GOLD = Example((1, 70, 71, 72, 2), (False, True, True, True), gold=True)
LONG = Example((1, 60, 61, 62, 63, 64, 65, 2), (True,) * 7, gold=True)
PLAIN = Example((1, 80, 81), (True, True), gold=False)
LABELLED = Example(PLAIN.ids, PLAIN.trained, gold=True)
FIRST = Example((1, 90, 91, 2), (True, True, True), gold=False, dreamer=1)
SECOND = Example((1, 95, 96), (True, True), gold=False, dreamer=2)
EMPTY = Example((1, 5), (False,), gold=True)
KINDS: list[tuple[Kind, Truncation | None]] = [("hidden", None), ("logits", None), ("topk", SOME)]


def batch(*examples: Example, packing: bool = False) -> Batch:
    sources = [2 if example.dreamer else 0 for example in examples]
    return collate(examples, sources, Collation(0, 16, packing))


def spec(
    folder: Path, kind: Kind, cache: CacheSettings | None, truncation: Truncation | None = None, **changes: object
) -> TeacherSpec:
    told = {"number": 1, "dtype": "float32", **changes}
    return TeacherSpec(folder, kind=kind, truncation=truncation, cache=cache, **told)  # type: ignore[arg-type]


@pytest.fixture
def disk(tmp_path: Path) -> CacheSettings:
    return CacheSettings("disk", GIB, tmp_path / "signals")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Batch]]:
    """The batches that a model was run on."""
    seen: list[Batch] = []
    for name in ("trained_hidden_states", "trained_logits"):
        run = getattr(teacher, name)
        monkeypatch.setattr(
            teacher, name, lambda model, batch, run=run: (seen.append(batch), run(model, batch))[1], raising=True
        )
    yield seen


def equal(one: Signal, other: Signal) -> bool:
    assert (one.kind, one.dtype, one.truncation, one.rows.keys()) == (
        other.kind,
        other.dtype,
        other.truncation,
        other.rows.keys(),
    )
    arrays = [(one.places, other.places), *((one.rows[name], other.rows[name]) for name in one.rows)]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in arrays)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("kind", "truncation"), KINDS)
def test_what_was_said_once_is_said_again_bit_by_bit(
    kind: Kind,
    truncation: Truncation | None,
    dtype: str,
    packing: bool,
    parent: Path,
    disk: CacheSettings,
    read: list[Batch],
) -> None:
    made = batch(GOLD, FIRST, SECOND, PLAIN, LONG, EMPTY, packing=packing)
    first = Teacher(spec(parent, kind, disk, truncation, dtype=dtype))
    said = first.signal(made)
    said.check(len(made.rows_N))
    assert len(read) == 1 and first.cache_statistics.misses == 4 and first.cache_statistics.stored_bytes > 0
    assert equal(first.signal(made), said)
    later = Teacher(spec(parent, kind, disk, truncation, dtype=dtype))
    assert equal(later.signal(made), said)
    assert len(read) == 1 and (later.cache_statistics.hits, later.cache_statistics.misses) == (4, 0)
    plain = Teacher(spec(parent, kind, None, truncation, dtype=dtype))
    assert equal(plain.signal(made), said) and plain.cache_statistics == CacheStatistics()


@pytest.mark.parametrize(("kind", "truncation"), KINDS)
def test_the_model_reads_only_sequences_with_something_new(
    kind: Kind, truncation: Truncation | None, parent: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    cached = Teacher(spec(parent, kind, disk, truncation))
    before = cached.signal(batch(GOLD, PLAIN))
    mixed = batch(LONG, PLAIN, FIRST, GOLD)
    found = cached.signal(mixed)
    assert [len(view.input_ids_BT) for view in read] == [2, 2]
    assert read[1].input_ids_BT[:, 1].tolist() == [60, 90] and len(read[1].rows_N) == 10
    for name, array in before.rows.items():
        assert found.rows[name][mixed.example_N == 3].tobytes() == array[:3].tobytes()
        assert found.rows[name][mixed.example_N == 1].tobytes() == array[3:].tobytes()
    fresh = Teacher(spec(parent, kind, None, truncation)).signal(mixed)
    assert all(np.allclose(found.rows[name], array, atol=1e-4) for name, array in fresh.rows.items() if name != "ids")


def test_an_example_that_stands_twice_in_a_batch_is_read_once(
    parent: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    signal = Teacher(spec(parent, "hidden", disk)).signal(batch(GOLD, LONG, GOLD))
    assert len(read[0].input_ids_BT) == 2
    assert np.array_equal(signal.values[:3], signal.values[-3:])


def test_the_same_ids_with_and_without_labels_share_an_entry_and_not_their_surprisal(
    parent: Path, disk: CacheSettings
) -> None:
    cached = Teacher(spec(parent, "topk", disk, SOME))
    silent = cached.signal(batch(PLAIN)).rows["surprisal"]
    labelled = cached.signal(batch(LABELLED)).rows["surprisal"]
    assert cached.cache_statistics.hits == 1 and silent.tolist() == [0, 0]
    logits = load_model(parent)(torch.tensor([PLAIN.ids])).logits[0, :-1].log_softmax(-1)
    assert labelled == pytest.approx([-logits[0, 80].item(), -logits[1, 81].item()], abs=1e-5)


def test_a_batch_with_nothing_to_hear_asks_neither_cache_nor_model(
    parent: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    cached = Teacher(spec(parent, "topk", disk, SOME, dreams_only=True))
    signal = cached.signal(batch(GOLD, SECOND))
    signal.check(5)
    assert signal.rows["ids"].shape == (0, 16) and not read and cached.cache_statistics == CacheStatistics()


def test_a_spoiled_cache_is_computed_again_with_identical_values(
    parent: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    made = batch(GOLD, PLAIN, LONG)
    said = Teacher(spec(parent, "hidden", disk)).signal(made)
    assert disk.folder is not None
    (shard,) = disk.folder.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    again = Teacher(spec(parent, "hidden", disk))
    assert equal(again.signal(made), said)
    assert len(read) == 2 and (again.cache_statistics.refused, again.cache_statistics.misses) == (1, 3)
    assert equal(Teacher(spec(parent, "hidden", disk)).signal(made), said) and len(read) == 2


def test_a_full_cache_costs_time_and_nothing_else(parent: Path, tmp_path: Path, read: list[Batch]) -> None:
    cached = Teacher(spec(parent, "hidden", CacheSettings("disk", 10, tmp_path)))
    made = batch(GOLD, PLAIN)
    assert equal(cached.signal(made), cached.signal(made)) and len(read) == 2
    assert cached.cache_statistics == CacheStatistics(misses=4, full=True)


def test_another_teacher_finds_nothing_of_the_first(
    parent: Path, grandparent: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    one = Teacher(spec(parent, "hidden", disk)).signal(batch(GOLD))
    other = Teacher(spec(grandparent, "hidden", disk)).signal(batch(GOLD))
    assert len(read) == 2 and not np.allclose(one.values, other.values)


def test_the_same_teacher_elsewhere_finds_everything(
    parent: Path, tmp_path: Path, disk: CacheSettings, read: list[Batch]
) -> None:
    said = Teacher(spec(parent, "hidden", disk)).signal(batch(GOLD))
    moved = Path(shutil.copytree(parent, tmp_path / "moved"))
    assert equal(Teacher(spec(moved, "hidden", disk, number=2)).signal(batch(GOLD)), said) and len(read) == 1


def loss_of(sources: dict[int, SignalSource], made: Batch) -> float:
    objective, settings = Objective(gamma=0.3), RoutingSettings("surprise", surprise_tau=0.02)
    loss = Loss(
        FusedLoss(objective, settings, V),
        (0.5, 0.1, 0.4, 0.0),
        Worth({1: ("first",), 2: ("second",)}, FusionSettings(), settings),
    )
    student = 2 * torch.randn(len(made.rows_N), V, generator=torch.Generator().manual_seed(0))
    item = loss.routed(made, sources, torch.device("cpu"))
    total, sums = loss(StudentLogits(student), item, loss.counts(item))
    assert sums["route.blended"] > 0 and sums["route.gold"] > 0 and sums["route.dream"] > 0
    return total.item()


@pytest.mark.parametrize(("kind", "truncation"), [("hidden", None), ("logits", None), ("topk", ALL)])
def test_cached_streamed_and_in_process_signals_cost_the_same(
    kind: Kind, truncation: Truncation | None, parent: Path, grandparent: Path, disk: CacheSettings
) -> None:
    made, folders = batch(GOLD, LONG, FIRST, PLAIN, SECOND), {1: parent, 2: grandparent}

    def through(cache: CacheSettings | None) -> float:
        sources = {}
        for number, folder in folders.items():
            said = Teacher(spec(folder, kind, cache, truncation, number=number)).signal(made)
            sources[number] = TeacherHead.load(folder, kind, "float32", "cpu").source(said, len(made.rows_N))
        return loss_of(sources, made)

    Teacher(spec(parent, kind, disk, truncation)).signal(batch(LONG, GOLD))  # Other neighbours, other padding.
    found = [through(None), through(disk), through(disk), through(CacheSettings("memory", GIB))]
    inside = {number: LogitsSource.dense(in_process(folder, made)) for number, folder in folders.items()}
    assert found == pytest.approx([loss_of(inside, made)] * 4, abs=1e-6)


@torch.no_grad()
def in_process(folder: Path, made: Batch) -> torch.Tensor:
    model, width = load_model(folder), made.input_ids_BT.shape[1]
    logits = model(torch.from_numpy(made.input_ids_BT), torch.from_numpy(made.attention())).logits
    return logits.reshape(len(made.input_ids_BT) * width, -1)[torch.from_numpy(made.rows_N)]


def test_truncated_teachers_bound_their_true_divergence(parent: Path, grandparent: Path) -> None:
    made = batch(GOLD, LONG, PLAIN)
    rows, tops, dense = torch.arange(len(made.rows_N)), [], []
    for folder in (parent, grandparent):
        said = Teacher(spec(folder, "topk", None, Truncation(100, 2.0, V))).signal(made)
        source = TeacherHead.load(folder, "topk", "float32", "cpu").source(said, len(made.rows_N))
        assert isinstance(source, TopKSource)
        tops += source.likeliest(rows)
        dense.append(in_process(folder, made).double().log_softmax(-1))
    lower, upper = js_bounds(*tops)
    exact = jensen_shannon(*dense)
    assert (lower - 1e-6 <= exact).all() and (exact <= upper + 1e-6).all() and (upper - lower < 0.6).all()


def test_rows_come_apart_and_together_again() -> None:
    made = batch(LONG, GOLD, PLAIN, packing=True)
    rows: Rows = {"values": np.random.default_rng(0).normal(size=(12, 3)), "tail": np.arange(12)}
    parts = recall.split(rows, made)
    assert [len(parts[example.digest]["tail"]) for example in (LONG, GOLD, PLAIN)] == [7, 3, 2]
    assert all(part["values"].base is None for part in parts.values())
    found = recall.assemble(parts, made)
    assert all(np.array_equal(found[name], array) for name, array in rows.items())
    masked = recall.without_missing_labels({"surprisal": np.ones(12, np.float32)}, made)["surprisal"]
    assert masked.dtype == np.float32 and ((masked == 0) == (made.labels_N == IGNORE)).all()


@pytest.mark.parametrize(("kind", "truncation"), [("hidden", SOME), ("topk", None)])
def test_truncation_belongs_to_topk(kind: Kind, truncation: Truncation | None, parent: Path) -> None:
    with pytest.raises(ModelError, match=f"a teacher of kind {kind} was told truncation"):
        spec(parent, kind, None, truncation)


def test_sources_are_of_the_kind_of_their_signal(parent: Path) -> None:
    made, found = batch(GOLD), []
    for kind, truncation in KINDS:
        said = Teacher(spec(parent, kind, None, truncation)).signal(made)
        found.append(type(TeacherHead.load(parent, kind, "float32", "cpu").source(said, 3)))
    assert found == [HiddenSource, LogitsSource, TopKSource]
