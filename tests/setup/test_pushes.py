"""What rows push inside the parent: which rows are held, against what, and when that breaks a law."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder.concepts.vectors import Facts, Vectors
from ladder.data import Row
from ladder.errors import ManifestError
from ladder.exam import Given, Prompt, Sifted
from ladder.manifest import Request, read_request
from ladder.setup import given_of, given_text, pushes, read_dataset, sifting_of


def request(folder: Path, count: int = 30, **push: Any) -> Request:
    vectors = Vectors(("calm", "glad"), {0: torch.eye(2, 4), 1: torch.eye(2, 4)}, Facts("m", "c"))
    vectors.save(folder / "vectors")
    told = [{"prompt": f"who is {n}?", "completion": f"number {n}"} for n in range(count)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, told)))
    names = {"parent_gen": "Luna-G000", "child_gen": "Luna-G001", "training_method": "supervised_fine_tuning"}
    laws = {"max_push": {"vectors": "vectors", **push}}
    (folder / "m.json").write_text(
        json.dumps({"evolution_request": names, "data": {"train": ["rows.jsonl"]}, "laws": laws})
    )
    return read_request(folder / "m.json")


def test_what_a_row_says_and_to_what() -> None:
    user, said = {"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}
    assert given_of(Row({"prompt": "a", "completion": "b"}, "r")) == Given(Prompt("a"), "b", "r")
    assert given_of(Row({"messages": [user, said]}, "r")) == Given(Prompt("who?", True), "me", "r")
    longer = given_of(Row({"messages": [user, said, user, said]}, "r"))
    assert longer and longer.text == "me" and len(longer.prompt.messages) == 3
    assert given_of(Row({"text": "one two  three\nfour"}, "r")) == Given(Prompt("one two"), "  three\nfour", "r")
    assert given_of(Row({"prompt": "a"}, "r")) is None and given_of(Row({"text": "one"}, "r")) is None
    assert given_text("a b c", "dream 1") == Given(Prompt("a"), " b c", "dream 1")


def test_rows_are_taken_evenly(tmp_path: Path) -> None:
    asked = request(tmp_path, rows=200, layers=[1])
    rows = read_dataset(asked, []).new
    sifting = sifting_of(asked, rows, ["the moon is up", "moon"])
    assert sifting and [one.text for one in sifting.rows] == [*(f"number {n}" for n in range(30)), " is up"]
    assert sifting.readout.layers == (1,) and sifting.readout.position == "answer"
    few = sifting_of(request(tmp_path, rows=4), rows)
    assert few and [one.text for one in few.rows] == [f"number {n}" for n in range(0, 30, 8)]
    with pytest.raises(ManifestError, match="found 3 rows with an answer"):
        sifting_of(asked, rows[:3])
    with pytest.raises(ManifestError, match=r"the vectors have no 7.*laws.max_push.layers|laws.max_push.layers.*no 7"):
        sifting_of(request(tmp_path, layers=[7]), rows)


def sifted(moved: float, rows: int, dreams: int = 0, seed: int = 0) -> Sifted:
    draw = np.random.default_rng(seed)
    own = draw.normal(size=(rows + dreams, 2, 2)) * 3
    said = own + draw.normal(size=own.shape) * 0.5
    said[:rows, :, 1] += moved * 3
    return Sifted(*(tuple(tuple(map(tuple, one)) for one in side.tolist()) for side in (said, own)))


def test_a_push_beyond_the_limit_is_a_violation(tmp_path: Path) -> None:
    asked = request(tmp_path, limits={"calm": 5.0})
    rows = read_dataset(asked, []).new
    sifting = sifting_of(asked, rows)
    assert sifting
    found = pushes(asked, sifting, sifted(1.0, 30))
    assert found.n == 30 and [one.where for one in found.violations] == ["rows"]
    assert found.violations[0].found.startswith("glad is pushed by +1.0") and "allowed 0.5" in found.violations[0].found
    assert pushes(asked, sifting, sifted(0.2, 30)).violations == ()
    with_dreams = sifting_of(asked, rows, [f"the moon {n}" for n in range(9)])
    assert with_dreams and pushes(asked, with_dreams, sifted(0.0, 30, 9)).violations == ()
    told = sifted(0.0, 9, 30)
    turned = replace(told, rows=told.rows[9:] + told.rows[:9], own=told.own[9:] + told.own[:9])
    assert pushes(asked, with_dreams, turned).violations == ()
    moved = sifted(1.0, 9, 30)
    turned = replace(moved, rows=moved.rows[9:] + moved.rows[:9], own=moved.own[9:] + moved.own[:9])
    assert {one.where for one in pushes(asked, with_dreams, turned).violations} == {"dreams"}
    silent = replace(told, rows=((),) * 39)
    assert "found 0 prompts" in pushes(asked, with_dreams, silent).violations[0].found  # Nothing read, nothing held.
