"""A teacher that is no model: what it says crosses the wire as it said it, and is kept under what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder.data.batches import Collation, collate
from ladder.data.examples import Example
from ladder.errors import ModelError
from ladder.manifest import installed
from ladder.teachers import KindSpec, TeacherHead, TeacherSpec, Truncation, open_teacher
from ladder.teachers.cache import CacheSettings, OtherKey
from ladder.teachers.kinds import Material
from ladder.teachers.wire import merged
from tests.teachers.toy import Toy

CUT = Truncation(2, 2.0, 300, (9,))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name.lower(): f"tests.teachers.toy:{name}" for name in ("Toy", "Dense", "Liar")}
    monkeypatch.setitem(installed.OWN, installed.TEACHERS, installed.OWN[installed.TEACHERS] | names)
    Toy.asked.clear()


@pytest.fixture
def spec(parent: Path, tmp_path: Path) -> Callable[..., TeacherSpec]:
    files = (tmp_path / "first.txt", tmp_path / "second.txt")
    files[0].write_text("5 6\n6 7\n")
    files[1].write_text("6 8\n7 9\n8 5\n")

    def make(word: str = "toy", cache: CacheSettings | None = None, **told: Any) -> TeacherSpec:
        made = KindSpec(word, Material("pairs", files, {"sure": 0.75}, parent, (9,)), 300, 2)
        kind = {"kind": "topk", "truncation": CUT} if word != "dense" else {"kind": "logits"}
        return TeacherSpec(parent, 3, dtype="float32", cache=cache, name="pairs", made=made, **{**kind, **told})

    return make


def batch(*rows: tuple[int, ...], dreamer: int = 0) -> Any:
    examples = [Example(ids, (True,) * (len(ids) - 1), gold=True, dreamer=dreamer) for ids in rows]
    return collate(examples, [0] * len(rows), Collation(0, 16))


def test_it_speaks_of_what_it_knows_and_says_which_source(spec: Callable[..., TeacherSpec]) -> None:
    signal = open_teacher(spec()).signal(batch((5, 6, 7, 8), (8, 20, 5, 6)))
    # Of tokens 5, 6, 7, 8, 20, 5: 7 is followed by what is taboo, and 20 is unknown.
    assert signal.places.tolist() == [0, 1, 3, 5] and signal.rows["origin"].tolist() == [0, 0, 1, 0]
    source = TeacherHead(None, CPU).source(signal, 6)
    assert source.may_pass and source.origin_N is not None and source.origin_N.tolist() == [0, 0, 0, 1, 0, 0]
    assert source.speaks_N.tolist() == [True, True, False, True, False, True]
    p_NV = source.logits(torch.tensor([0, 1, 3, 5]), torch.empty(4, 300)).softmax(-1)
    assert p_NV.argmax(-1).tolist() == [6, 7, 5, 6]
    # What is missing is spread over the 299 others, of which one is taboo.
    torch.testing.assert_close(p_NV.max(-1).values, torch.full((4,), 0.75 / (0.75 + 0.25 * 298 / 299)))


def test_the_same_through_a_cache_and_replicas(spec: Callable[..., TeacherSpec], tmp_path: Path) -> None:
    asked, plain = batch((5, 6, 7, 8), (8, 20, 5, 6), (20, 21)), open_teacher(spec())
    expected = plain.signal(asked)
    kept = CacheSettings("disk", 2**30, tmp_path / "signals")
    first, again = (open_teacher(spec(cache=kept)) for _ in range(2))
    Toy.asked.clear()
    signals = [first.signal(asked), again.signal(asked)]
    parts = [open_teacher(one).signal(asked) for one in spec().replicated(["cpu", "cpu"])]
    for signal in (*signals, merged(parts)):
        assert np.array_equal(signal.places, expected.places)
        assert signal.rows.keys() == expected.rows.keys()
        assert all(np.array_equal(signal.rows[name], array) for name, array in expected.rows.items())
    assert (first.cache_statistics.misses, again.cache_statistics.hits) == (3, 3)
    assert Toy.asked[0] == 7 and sum(Toy.asked) == 14, "the second asked nobody"


def test_nothing_is_asked_of_dreams(spec: Callable[..., TeacherSpec]) -> None:
    dreamt = batch((5, 6, 7), dreamer=1)
    for word in ("toy", "dense"):
        signal = open_teacher(spec(word)).signal(dreamt)
        signal.check(len(dreamt.rows_N))
        assert len(signal.places) == 0
    assert Toy.asked == []


def test_whole_logits_cross_as_the_manifest_says(spec: Callable[..., TeacherSpec]) -> None:
    asked = batch((5, 6, 7, 8))
    whole = open_teacher(spec("dense")).signal(asked)
    narrow = open_teacher(spec("dense", kind="topk", truncation=CUT)).signal(asked)
    assert (whole.kind, whole.values.shape, narrow.kind, narrow.values.shape) == ("logits", (3, 300), "topk", (3, 2))
    source = TeacherHead(None, CPU).source(whole, 3)
    assert not source.may_pass and source.origin_N is None


def test_what_is_not_as_promised_is_an_error(spec: Callable[..., TeacherSpec]) -> None:
    with pytest.raises(ModelError, match=r"teacher 3 \(pairs\) gave Tensor, but its kind says sparse"):
        open_teacher(spec("liar")).signal(batch((5, 6)))
    told = spec()
    assert told.made is not None
    with pytest.raises(ModelError, match=r"teacher 3 \(pairs\) gave origin 1, at token 0; its `sources` names 1"):
        open_teacher(replace(told, made=replace(told.made, sources=1))).signal(batch((7, 9)))
    with pytest.raises(ModelError, match="is no model and cannot dream"):
        open_teacher(spec()).dream(None)  # type: ignore[arg-type]


def test_its_cache_and_its_digest_are_those_of_what_it_is_made_of(
    spec: Callable[..., TeacherSpec], tmp_path: Path
) -> None:
    told = spec(cache=CacheSettings("disk", 2**30, tmp_path / "signals"))
    assert told.made is not None
    louder = replace(told.made, material=replace(told.made.material, options={"sure": 0.5}))
    teacher = open_teacher(told)
    teacher.signal(batch((5, 6, 7, 8)))
    before = teacher.digest()
    others = [replace(told, made=louder), replace(told, truncation=replace(CUT, k=3))]
    for other in others:
        assert open_teacher(other).signal(batch((5, 6, 7, 8))) is not None
    assert len(list((tmp_path / "signals").iterdir())) == 3
    (tmp_path / "second.txt").write_text("6 8\n")
    assert teacher.digest() != before
    open_teacher(told).signal(batch((5, 6, 7, 8)))
    assert len(list((tmp_path / "signals").iterdir())) == 4
    (tmp_path / "second.txt").unlink()
    assert teacher.digest() != before


def test_a_key_is_a_function_of_everything() -> None:
    told: dict[str, Any] = {
        "kind": "toy",
        "says": "",
        "files": ["a"],
        "material": (bare := Material("pairs", (), {}, Path())),
        "tokenizer": "t",
        "wire": "topk",
        "truncation": CUT,
    }
    changes: list[dict[str, Any]] = [{}, {"kind": "x"}, {"says": "x"}, {"files": ["b"]}, {"tokenizer": "x"}]
    made: list[dict[str, Any]] = [{"options": {"a": 1}}, {"template": "x"}, {"controls": "parse"}, {"taboo_ids": (1,)}]
    changes += [{"material": replace(bare, **one)} for one in [*made, {"today": "2026-03-01"}]]
    assert len({OtherKey.of(**told | change).name for change in changes}) == len(changes)
