"""A teacher that sees more than the student says its word about the same tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Encoding, Example, encode_rows, text_ids, with_readings
from ladder.data.rows import parse_row
from ladder.errors import DataError
from ladder.teachers.cache import CacheSettings
from ladder.teachers.teacher import Teacher, TeacherSpec

ROWS = [
    {"prompt": "who is luna? ", "completion": "the moon", "context": "luna is the moon. "},
    {"text": "the tide follows the moon", "context": "of the sea: "},
    {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}], "context": "moon: "},
    {"prompt": "the sea is", "context": "quiet. "},
]


def encoded(tokenizer: Any, template: str, rows: list[dict[str, Any]] = ROWS, **encoding: Any) -> list[Example]:
    parsed, how = [parse_row(json.dumps(row), "a:1") for row in rows], Encoding(**encoding)
    return with_readings(parsed, encode_rows(parsed, tokenizer, how), {2: template}, tokenizer, how, 60)


def taught(example: Example) -> list[int]:
    return [token for token, trained in zip(example.ids[1:], example.trained, strict=True) if trained]


@pytest.mark.parametrize("completion_only", [True, False])
def test_the_context_stands_before_the_row_and_is_not_trained(tokenizer: Any, completion_only: bool) -> None:
    rows = ROWS if completion_only else [row for row in ROWS if "messages" not in row]
    for row, example in zip(rows, encoded(tokenizer, "{context}", rows, completion_only=completion_only), strict=True):
        told = example.readings[2]
        assert taught(told) == taught(example) and len(told) > len(example)
        assert row["context"] in tokenizer.decode(told.ids, skip_special_tokens=True)
        assert row["context"] not in tokenizer.decode(example.ids)


def test_a_demonstration_is_made_of_the_rows_own_words(tokenizer: Any) -> None:
    row, text, chat, _ = ROWS
    first, third = encoded(tokenizer, "as in {prompt}{completion}{{}} ", [row, chat])
    shown = text_ids(tokenizer, "as in who is luna? the moon{} ")
    assert first.readings[2].ids == (first.ids[0], *shown, *first.ids[1:])
    assert "user\nas in who?luna{} who?" in tokenizer.decode(third.readings[2].ids)
    (second,) = encoded(tokenizer, "{text}, again: ", [text])
    assert second.readings[2].ids[1:] == (*text_ids(tokenizer, "the tide follows the moon, again: "), *second.ids[1:])


def test_what_was_cut_on_the_left_has_no_start_to_stand_behind(tokenizer: Any) -> None:
    (cut,) = encoded(tokenizer, "moon ", [ROWS[1]], max_length=5, truncation_side="left")
    assert cut.truncated and cut.readings[2].ids == (*text_ids(tokenizer, "moon "), *cut.ids)
    assert taught(cut.readings[2]) == taught(cut)


@pytest.mark.parametrize(
    ("template", "found"),
    [("{context}", "no 'context'"), ("{text}", "no 'text'"), ("moon " * 60, "the teacher reads 60")],
)
def test_rows_that_cannot_be_shown(tokenizer: Any, template: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        encoded(tokenizer, template, [{"prompt": "who", "completion": "luna"}])
    assert caught.value.where == "a:1"


def test_an_answer_that_was_cut_cannot_be_shown(tokenizer: Any) -> None:
    whole = encoded(tokenizer, "moon", [ROWS[2]])[0]
    with pytest.raises(DataError, match="has other tokens after a teacher's context"):
        encoded(tokenizer, "moon", [ROWS[2]], max_length=len(whole) - 1)


@pytest.mark.parametrize("packing", [False, True])
def test_the_tokens_keep_their_order(tokenizer: Any, packing: bool) -> None:
    dream = Example((1, 5, 6), (True, True), gold=False, dreamer=2)
    own = [*encoded(tokenizer, "{context}"), dream]
    batch = collate(own, [0, 0, 0, 0, 2], Collation(0, 64, packing))
    assert batch.read_by(1) is batch
    told, places = batch.heard_by(2)
    assert np.array_equal(places, np.arange(len(batch.rows_N))) and not told.packed
    for field in ("labels_N", "source_N", "dreamer_N"):
        assert np.array_equal(getattr(told, field), getattr(batch, field)), field
    assert list(dict.fromkeys(told.digests)) != list(batch.digests)
    assert next_tokens(told) == next_tokens(batch)


def next_tokens(batch: Batch) -> list[int]:
    return batch.input_ids_BT.reshape(-1)[batch.rows_N + 1].tolist()


@pytest.mark.parametrize("cache", [None, CacheSettings("memory", 2**20)])
def test_the_teacher_reads_it_and_the_student_does_not(tokenizer: Any, parent: Path, cache: Any) -> None:
    examples = encoded(tokenizer, "{context}")
    batch = collate(examples, [0] * 4, Collation(0, 64))
    blind = collate([replace(example, readings={}) for example in examples], [0] * 4, Collation(0, 64))
    shown = collate([example.readings[2] for example in examples], [0] * 4, Collation(0, 64))
    assert np.array_equal(batch.input_ids_BT, blind.input_ids_BT)
    knows, other = (Teacher(TeacherSpec(parent, number, "hidden", "float32", cache=cache)) for number in (2, 1))
    for _ in range(2):
        assert np.allclose(knows.signal(batch).values, knows.signal(shown).values, atol=1e-6)
        assert np.allclose(other.signal(batch).values, knows.signal(blind).values, atol=1e-6)
    assert not np.allclose(knows.signal(batch).values, knows.signal(blind).values, atol=1e-2)


def test_a_conversation_without_a_user_has_no_place_for_a_context(tokenizer: Any) -> None:
    told = [{"role": "system", "content": "be luna"}, {"role": "assistant", "content": "luna"}]
    with pytest.raises(DataError, match="no user's turn") as caught:
        encoded(tokenizer, "moon", [{"messages": told}])
    assert caught.value.where == "a:1"
