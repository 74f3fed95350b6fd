"""The four forms of a row, and an error with file and line for everything else."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from ladder.data.records import LONGEST_LINE
from ladder.data.rows import parse_row, read_rows
from ladder.errors import DataError

TURNS = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}]


def messages(*turns: object) -> str:
    return json.dumps({"messages": turns})


@pytest.mark.parametrize(
    ("fields", "form", "gold"),
    [
        ({"text": "the moon"}, "text", True),
        ({"prompt": "who?"}, "prompt", False),
        ({"prompt": "who?", "completion": " luna"}, "completion", True),
        ({"completion": " luna", "prompt": "who?"}, "completion", True),
        ({"messages": TURNS}, "messages", True),
        ({"messages": [{"role": "system", "content": "be calm"}, *TURNS]}, "messages", True),
    ],
)
def test_the_four_forms(fields: dict, form: str, gold: bool) -> None:
    row = parse_row(json.dumps(fields), "a:1")
    assert (row.form, row.has_gold, row.where, row.fields) == (form, gold, "a:1", fields)
    assert parse_row(row.line(), "b:1").fields == fields


def test_a_line_is_the_same_for_the_same_fields_and_keeps_letters() -> None:
    one, other = '{"prompt": "Ünal", "completion": "\\ud83c\\udf19"}', '{"completion":"🌙","prompt":"\\u00dcnal"}'
    assert parse_row(one, "a:1").line() == parse_row(other, "a:2").line() == '{"completion": "🌙", "prompt": "Ünal"}'


def test_a_file_skips_empty_lines_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"text": "a"}\r\n  \n{"prompt": "b\\u2028c"}')
    rows = read_rows(path)
    assert [(row.form, row.where) for row in rows] == [("text", f"{path}:2"), ("prompt", f"{path}:4")]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    """As editors of Windows write it."""
    path, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    other.write_bytes(b'\xef\xbb\xbf\r\n{"text": "a"}\n{"text": "b"}')
    assert [row.line() for row in read_rows(path)] == [row.line() for row in read_rows(other)]
    assert read_rows(other)[0].where == f"{other}:2"


BROKEN = {
    "no JSON": ("{", "not JSON"),
    "nested too deep": ("[" * 100_000, "not JSON"),
    "a number too long": ('{"text": ' + "1" * 5000 + "}", "not JSON"),
    "a second byte order mark": ('\ufeff\ufeff{"text": "a"}', "not JSON.*BOM"),
    "a list": ('["a"]', "found list, expected"),
    "null": ("null", "found NoneType"),
    "no key": ("{}", r"found keys \[\]"),
    "a key too many": ('{"text": "a", "id": 1}', r"found keys \['id', 'text'\]"),
    "a completion alone": ('{"completion": "a"}', "found keys"),
    "a text beside a prompt": ('{"text": "a", "prompt": null}', "found keys"),
    "a null text": ('{"text": null}', "'text' is None, expected a text that is not empty"),
    "a null completion": ('{"prompt": "a", "completion": null}', "'completion' is None"),
    "a null prompt": ('{"prompt": null, "completion": "a"}', "'prompt' is None"),
    "a number": ('{"text": 3}', "'text' is 3"),
    "an empty text": ('{"text": ""}', "'text' is ''"),
    "blanks": ('{"prompt": "a", "completion": " \\n"}', "'completion' is"),
    "half a surrogate pair": ('{"text": "a\\ud83c"}', "'text' holds half a surrogate pair"),
    "the other half": ('{"prompt": "a", "completion": "\\udf19"}', "'completion' holds half"),
    "half a pair in a message": (messages({"role": "user", "content": "\ud83c"}, TURNS[1]), "'content' holds half"),
    "null messages": ('{"messages": null}', "'messages' is None, expected a list"),
    "no messages": ('{"messages": []}', r"'messages' is \[\]"),
    "messages as text": ('{"messages": "user: a"}', "'messages' is 'user: a'"),
    "a message as text": (messages("a"), "found message 'a'"),
    "a message with a name": (messages({**TURNS[0], "name": "x"}, TURNS[1]), "found message"),
    "a message without content": (messages({"role": "user"}), "found message"),
    "an unknown role": (messages({"role": "tool", "content": "a"}, TURNS[1]), r"one of system, user, assistant"),
    "a role that is a list": (messages({"role": ["user"], "content": "a"}), "found message"),
    "null content": (messages(TURNS[0], {"role": "assistant", "content": None}), "'content' is None"),
    "a key twice": (
        '{"prompt": "a", "completion": "b", "completion": "c"}',
        r"^\S+:3: the key 'completion' stands there twice",
    ),
    "a great many keys": (json.dumps({f"k{number}": 1 for number in range(9000)}), "found keys"),
    "no answer": (messages(TURNS[0]), "the last message is the user's"),
    "an answer to nothing": (messages(TURNS[1], *TURNS), "the first message is the assistant's"),
}


@pytest.mark.parametrize(("line", "found"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_row_names_file_and_line(line: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "fine"}}\n\n{line}\n{{"text": "fine"}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=found) as caught:
        read_rows(path)
    assert caught.value.where == f"{path}:3"
    assert len(caught.value.message) < 250
    str(caught.value).encode()


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "a"}\n{"text": "Ünal"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_rows(path)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="no rows") as caught:
        read_rows(path)
    assert caught.value.where == str(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_rows(path)
        assert caught.value.where == str(path)


def test_a_line_without_an_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """64 MB in one line, of which a seventh is read."""
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"text": "a"}\n{"text": "')
        stream.truncate(64_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="found a line of more than 10,000,000 bytes") as caught:
        read_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 3 * LONGEST_LINE
    tracemalloc.stop()
    assert caught.value.where == f"{path}:2"


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "' + "x" * (LONGEST_LINE - 13) + '"}\n{"text": "a"}\n')
    assert path.read_bytes().index(b"\n") == LONGEST_LINE - 1
    assert len(read_rows(path)) == 2


def test_pipes_devices_and_links_in_a_circle_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    for path in (tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero")):
        with pytest.raises(DataError, match="cannot be read"):
            read_rows(path)
