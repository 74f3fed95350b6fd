"""Rows that are not left behind, and rows that are erased afterwards, in runs as people start them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladder.data.rows import read_rows
from ladder.data.sidecars import HASHED, LEARNED, read_digests
from ladder.registry.redaction import Traces

PERSON = {"text": "The stone is green."}


def sidecars(toy: Any, ref: str) -> Path:
    return toy.registry.materialize(toy.registry.find(ref)) / "ladder"


def test_digests_are_left_in_place_of_rows(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    toy.evolve(toy.manifest(3, "continual_pretraining", parent=2, stabilizers={"replay": "hashed"}))
    left = sidecars(toy, "Toy-G003")
    rows = read_rows(toy.folder / "3.jsonl")
    assert not {"replay.jsonl", "dreams.jsonl"} & {path.name for path in left.iterdir()}
    assert read_digests(left / HASHED) == read_digests(left / LEARNED) == {row.digest for row in rows}
    words = rows[1].fields["text"].encode()
    stored = toy.registry.home / "store"
    assert not [path for path in stored.rglob("*") if path.is_file() and words in path.read_bytes()]


def test_an_erased_row_is_gone_and_stays_out(copy_of: Callable[[], Any]) -> None:
    """What was decided stays decided when the row is taken out of the files, and no descendant learns it again."""
    toy = copy_of()
    assert PERSON["text"] in (sidecars(toy, "Toy-G000") / "replay.jsonl").read_text()
    traces = Traces(read_rows(toy.write("person.jsonl", [PERSON])))
    found = toy.registry.erase("Toy", traces, reason="asked for")
    told = {trail.ref: (trail.learned, trail.through) for trail in found.trails}
    assert told == {
        "Toy-G000": (1, ()),
        "Toy-G001": (0, ("Toy-G000",)),
        "Toy-G002": (0, ("Toy-G000",)),
    }
    stored = toy.registry.home / "store"
    assert not [path for path in stored.rglob("*") if path.is_file() and PERSON["text"].encode() in path.read_bytes()]

    rows = [row.fields for row in read_rows(toy.folder / "0.jsonl") if row.fields != PERSON]
    toy.write("0.jsonl", rows)
    (again,) = toy.evolve(toy.folder / "000.json")
    assert (again.verdict, again.trained, again.ref) == ("PROMOTED", False, "Toy-G000")

    path = toy.manifest(3, "continual_pretraining", parent=2)
    own = [row.fields for row in read_rows(toy.folder / "3.jsonl")]
    toy.write("3.jsonl", [*own, PERSON])
    (refused,) = toy.evolve(path)
    assert (
        refused.verdict == "FAILED" and "erased from an ancestor" in refused.detail and "3.jsonl:11" in refused.detail
    )
    toy.write("3.jsonl", own)
    (child,) = toy.evolve(path)
    assert child.verdict == "PROMOTED" and toy.registry.verify("Toy") == []
    assert json.loads((sidecars(toy, "Toy-G000") / "erased.json").read_text())[0]["learned"] == 1
