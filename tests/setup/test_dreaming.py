"""Dreams are asked for by the block, several at a time where a dreamer has replicas; they are the same dreams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import DataError
from ladder.manifest import Request, read_request
from ladder.models import load_tokenizer
from ladder.sampling.dreams import BLOCK, Dream, DreamBatch
from ladder.setup import Beginnings, write_dreams


def request(folder: Path, count: int, teacher: str = "both") -> Request:
    (folder / "rows.jsonl").write_text('{"prompt": "who?", "completion": "luna"}\n' * 4)
    body = {
        "evolution_request": {
            "child_gen": "Luna-G002",
            "parent_gen": "Luna-G001",
            "grandparent_gen": "Luna-G000",
            "training_method": "teacher_student_distillation",
        },
        "data": {"train": ["rows.jsonl"], "max_length": 32},
        "stabilizers": {"dreams": {"teacher": teacher, "count": count, "max_new_tokens": 8, "min_new_tokens": 2}},
    }
    (folder / "manifest.json").write_text(json.dumps(body))
    return read_request(folder / "manifest.json")


EVERYWHERE = Beginnings("start", [[1]])


def written(
    folder: Path,
    parent: Path,
    count: int,
    at_once: int,
    usable: int,
    teacher: str = "both",
    begins: Beginnings = EVERYWHERE,
) -> tuple[list[Dream], list[int]]:
    """The dreams, and how many blocks were asked for each time. Of each block so many are long enough."""
    asked: list[int] = []

    def ask(blocks: Sequence[DreamBatch]) -> list[list[Dream]]:
        asked.append(len(blocks))
        return [[dream(block, place) for place in range(BLOCK)] for block in blocks]

    def dream(block: DreamBatch, place: int) -> Dream:
        new = (block.seed % 200, place, 7) if place < usable else ()
        return Dream((1, *new), 1, block.teacher, "")

    path = folder / f"dreams-{at_once}.jsonl"
    told: Any = write_dreams(
        request(folder, count, teacher),
        path,
        (1, 2),
        ask,
        parent,
        load_tokenizer(parent),
        begins,
        lambda _: None,
        at_once,
    )
    return told, asked


@pytest.mark.parametrize("teacher", ["both", "teacher1"])
@pytest.mark.parametrize(("count", "usable"), [(40, BLOCK), (500, BLOCK), (300, 40), (1, 1)])
def test_several_blocks_at_once_are_the_dreams_of_one_at_a_time(
    tmp_path: Path, parent: Path, count: int, usable: int, teacher: str
) -> None:
    one, asked = written(tmp_path, parent, count, 1, usable, teacher)
    dreamers = 2 if teacher == "both" else 1
    assert len(one) == count and set(asked) == {dreamers}
    for at_once in (2, 3):
        several, waves = written(tmp_path, parent, count, at_once, usable, teacher)
        assert several == one
        assert max(waves) <= at_once * dreamers and len(waves) <= len(asked)
        assert sum(waves) == sum(asked), "no block is written for nothing"


def test_nearly_all_too_short_is_told_after_as_many_blocks(tmp_path: Path, parent: Path) -> None:
    for at_once in (1, 3):
        with pytest.raises(DataError, match=f"0 usable dreams among {12 * 2 * BLOCK}, 150 wanted"):
            written(tmp_path, parent, 150, at_once, 0)


def test_lessons_are_dreamt_by_their_dreamers_in_their_shares(tmp_path: Path, parent: Path) -> None:
    """Of nine openings six are the parent's and three an older teacher's, which no method named."""
    begins = Beginnings("replay", [[1, place] for place in range(9)], (1, 1, 1, 5, 1, 5, 1, 5, 1))
    assert begins.by_dreamer([1]) == {1: [[1, n] for n in (0, 1, 2, 4, 6, 8)], 5: [[1, n] for n in (3, 5, 7)]}
    dreams, _ = written(tmp_path, parent, 9 * BLOCK, 1, BLOCK, "teacher1", begins)
    blocks = [dream.teacher for dream in dreams[::BLOCK]]
    assert blocks == [1, 5, 1, 1, 5, 1, 1, 5, 1], "in turns, so that any number of them has about its share"
    several, _ = written(tmp_path, parent, 9 * BLOCK, 3, BLOCK, "teacher1", begins)
    assert several == dreams
