"""Encoded rows on disk: the same examples again, and never those of other rows, tokenizers or settings."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ladder.data import examples
from ladder.data.examples import Encoding, Example, encode_once, encode_rows, read_examples, tokens_key, write_examples
from ladder.data.rows import Row, parse_row
from ladder.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}]}
FORMS = [{"text": "the moon"}, {"prompt": "who is"}, {"prompt": "who is", "completion": " luna the moon"}, CHAT]
SHORT = Encoding(max_length=12, truncation_side="left")
KEY = "0" * 64
EXAMPLES = [
    Example((5, 6, 7), (False, True), gold=True),
    Example((299,), (), gold=False),
    Example((0, 2**31 - 1, 3, 4), (True, True, False), gold=False, dreamer=2, truncated=True),
]


def read(fields: list[dict], name: str = "rows.jsonl") -> list[Row]:
    return [parse_row(json.dumps(one), f"{name}:{n}") for n, one in enumerate(fields, 1)]


def many(name: str = "rows.jsonl") -> list[Row]:
    return read([*FORMS, *({"text": f"tide {n}"} for n in range(examples.LEAST))], name)


def changed(tokenizer: Any, **changes: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were encoded, each time that any were."""
    seen: list[int] = []

    def encode(rows: Any, *told: Any) -> Any:
        seen.append(len(rows))
        return encode_rows(rows, *told)

    monkeypatch.setattr(examples, "encode_rows", encode)
    return seen


def test_rows_are_encoded_once(tokenizer: Any, tmp_path: Path, counted: list[int]) -> None:
    expected = encode_rows(many(), tokenizer, SHORT)
    assert any(example.truncated for example in expected) and not all(example.gold for example in expected)
    for name in ("rows.jsonl", "rows.jsonl", "moved.jsonl"):
        found = encode_once(many(name), tokenizer, SHORT, tmp_path / "tokens")
        assert found == expected and [example.digest for example in found] == [one.digest for one in expected]
    assert counted == [len(expected)]
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".safetensors"]


def test_a_few_rows_are_not_worth_a_file(tokenizer: Any, tmp_path: Path) -> None:
    few = read(FORMS)
    assert encode_once(few, tokenizer, SHORT, tmp_path) == encode_rows(few, tokenizer, SHORT)
    assert not list(tmp_path.iterdir())


def test_examples_come_back_exactly(tmp_path: Path) -> None:
    write_examples(tmp_path / "x", KEY, EXAMPLES)
    found = read_examples(tmp_path / "x", KEY)
    assert found == EXAMPLES
    kinds = {type(value) for one in found for value in (*one.ids, one.dreamer)}
    flags = {type(value) for one in found for value in (*one.trained, one.gold, one.truncated)}
    assert (kinds, flags) == ({int}, {bool})
    # Readings and weights are made of rows and templates after this.
    kept = {"ids", "trained", "gold", "dreamer", "truncated"}
    assert {field.name for field in dataclasses.fields(Example)} == kept | {"readings", "weight"}


def test_no_rows_are_an_empty_list(tmp_path: Path) -> None:
    write_examples(tmp_path / "x", KEY, [])
    assert read_examples(tmp_path / "x", KEY) == []


def test_the_key_says_everything_that_the_ids_depend_on(tokenizer: Any) -> None:
    rows = read(FORMS)
    before = tokens_key(rows, tokenizer, Encoding())
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(["moon"])
    keys = [
        tokens_key(rows[1:], tokenizer, Encoding()),
        tokens_key(rows[::-1], tokenizer, Encoding()),
        tokens_key(read([{"text": "the noon"}, *FORMS[1:]]), tokenizer, Encoding()),
        *(tokens_key(rows, tokenizer, encoding) for encoding in (SHORT, Encoding(12), Encoding(completion_only=False))),
        tokens_key(rows, grown, Encoding()),
        tokens_key(rows, changed(tokenizer, chat_template="{{ messages }}"), Encoding()),
        tokens_key(rows, changed(tokenizer, eos_token=None), Encoding()),
        tokens_key(rows, changed(tokenizer, bos_token="<|end|>"), Encoding()),
    ]
    assert len({before, *keys}) == len(keys) + 1
    assert before == tokens_key(read(FORMS, "moved.jsonl"), copy.deepcopy(tokenizer), Encoding())


@pytest.mark.parametrize("name", ["FORMAT", "transformers", "tokenizers"])
def test_another_version_has_another_key(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = tokens_key(read(FORMS), tokenizer, Encoding())
    place = (examples, "FORMAT") if name == "FORMAT" else (getattr(examples, name), "__version__")
    monkeypatch.setattr(*place, "0")
    assert tokens_key(read(FORMS), tokenizer, Encoding()) != before


def test_how_a_tokenizer_was_last_used_is_no_part_of_the_key(tokenizer: Any) -> None:
    used = copy.deepcopy(tokenizer)
    used.backend_tokenizer.enable_truncation(3)
    used.backend_tokenizer.enable_padding(length=9)
    assert tokens_key(read(FORMS), used, Encoding()) == tokens_key(read(FORMS), tokenizer, Encoding())


def test_a_torn_file_is_refused_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_examples(path, KEY, EXAMPLES)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read_examples(path, KEY) is None, size


def test_no_flipped_bit_changes_an_example(tmp_path: Path) -> None:
    """One that is harmless, such as a space of the header, may pass."""
    path = tmp_path / "x"
    write_examples(path, KEY, EXAMPLES)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = read_examples(path, KEY)
        assert found in (None, EXAMPLES), place
        refused += found is None
    assert refused > len(whole) - 16


def test_a_file_of_other_rows_or_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_examples(path, KEY, EXAMPLES)
    assert read_examples(path, "1" * 64) is None and read_examples(tmp_path / "none", KEY) is None
    monkeypatch.setattr(examples, "FORMAT", "0")
    assert read_examples(path, KEY) is None
    monkeypatch.undo()
    assert read_examples(path, KEY) == EXAMPLES
    save_file(load_file(path), path)
    assert read_examples(path, KEY) is None, "no metadata"


def test_what_was_refused_is_written_anew(tokenizer: Any, tmp_path: Path, counted: list[int]) -> None:
    rows = many()
    expected = encode_once(rows, tokenizer, SHORT, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert [encode_once(rows, tokenizer, SHORT, tmp_path) for _ in range(2)] == [expected, expected]
    assert counted == [len(rows)] * 2 and list(tmp_path.iterdir()) == [path]


def test_a_row_that_is_refused_names_its_place_each_time_and_leaves_nothing(tokenizer: Any, tmp_path: Path) -> None:
    long = {"prompt": "0123456789 9876543210", "completion": " luna"}
    rows = [*many()[len(FORMS) :], *read([long], "bad.jsonl")]
    for _ in range(2):
        with pytest.raises(DataError, match="nothing to train on") as caught:
            encode_once(rows, tokenizer, Encoding(max_length=12), tmp_path)
        assert caught.value.where == "bad.jsonl:1"
    assert not list(tmp_path.iterdir())
