"""Rows as people have them: files of other forms, records of other shapes, and an error with file and row for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder.data.rows import Row, parse_row, read_rows
from ladder.errors import DataError

SYSTEM, ASKED, SAID = "Be calm, and short.", "Who?", "Luna"
CHAT = {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]}
TAUGHT = {"messages": [{"role": "system", "content": SYSTEM}, *CHAT["messages"]]}


def read(path: Path, content: str | bytes, **columns: str) -> list[Row]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(path, columns)


def test_a_table_with_a_system_column_is_conversations(tmp_path: Path) -> None:
    """Quoted commas, quotes and newlines; a row without a system's words; the byte order mark of spreadsheets."""
    text = '\ufeffsystem,prompt,completion\r\n"Be calm, and short.",Who?,Luna\r\n,"Say ""hi""\nnow?",hi\r\n'
    rows = read(tmp_path / "rows.csv", text)
    assert rows[0].fields == TAUGHT and rows[0].where == f"{tmp_path / 'rows.csv'}:2"
    assert rows[1].fields == {"prompt": 'Say "hi"\nnow?', "completion": "hi"} and rows[1].where.endswith(":3")
    assert read(tmp_path / "rows.TSV", f"system\tprompt\tcompletion\n{SYSTEM}\tWho?\tLuna\n")[0].fields == TAUGHT
    semicolons = read(tmp_path / "excel.csv", "prompt;completion\nWho?;Luna, 3\n")
    assert semicolons[0].fields == {"prompt": "Who?", "completion": "Luna, 3"}


def test_a_row_is_the_same_whatever_file_it_stands_in(tmp_path: Path) -> None:
    (one,) = read(tmp_path / "rows.csv", "prompt,completion\nWho?,Luna\n")
    (other,) = read(tmp_path / "rows.jsonl", '{"prompt": "Who?", "completion": "Luna"}')
    assert one.digest == other.digest


def test_a_json_list_is_rows_and_json_lines_stay_lines(tmp_path: Path) -> None:
    rows = read(tmp_path / "rows.json", json.dumps([{"text": "a"}, TAUGHT], indent=1))
    assert [row.where for row in rows] == [f"{tmp_path / 'rows.json'}: row {n}" for n in (1, 2)]
    assert read(tmp_path / "lines.json", '{"text": "a"}\n')[0].where == f"{tmp_path / 'lines.json'}:1"


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a system's words beside a prompt": ({"system": SYSTEM, "prompt": ASKED, "completion": SAID}, TAUGHT),
    "a system's words beside messages": ({"system": SYSTEM, **CHAT}, TAUGHT),
    "user and assistant": ({"user": ASKED, "assistant": SAID}, CHAT),
    "an instruction": ({"instruction": ASKED, "input": "", "output": SAID}, CHAT),
    "an instruction with its input": (
        {"instruction": "Who", "input": "is it?", "output": SAID},
        {"messages": [{"role": "user", "content": "Who\n\nis it?"}, CHAT["messages"][1]]},
    ),
    "an instruction with a system's words": ({"instruction": ASKED, "output": SAID, "system": SYSTEM}, TAUGHT),
    "turns": ({"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]}, CHAT),
    "turns with a system's": (
        {
            "conversations": [
                {"from": who, "value": said} for who, said in {"system": SYSTEM, "human": ASKED, "gpt": SAID}.items()
            ]
        },
        TAUGHT,
    ),
    "turns beside a system's words": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}], "system": SYSTEM},
        TAUGHT,
    ),
    "messages in a cell": ({"messages": json.dumps(CHAT["messages"])}, CHAT),
}


@pytest.mark.parametrize(("given", "meant"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes_that_people_have(given: dict, meant: dict) -> None:
    row = parse_row(json.dumps(given), "a:1")
    assert row.fields == meant and row.form == "messages" and row.has_gold
    assert row.digest == parse_row(json.dumps(meant), "b:1").digest


def test_columns_say_what_is_what_and_others_are_left_out(tmp_path: Path) -> None:
    text = "id,question,reply,points\n7,Who?,Luna,2\n8,Where?,here,\n"
    rows = read(tmp_path / "rows.csv", text, prompt="question", completion="reply", weight="points")
    assert [(row.fields, row.weight) for row in rows] == [
        ({"prompt": "Who?", "completion": "Luna"}, 2.0),
        ({"prompt": "Where?", "completion": "here"}, 1.0),
    ]
    with pytest.raises(
        DataError, match=r"has no column 'answer', which data\.columns names for 'completion'"
    ) as caught:
        read(tmp_path / "rows.csv", text, prompt="question", completion="answer")
    assert caught.value.where == f"{tmp_path / 'rows.csv'}:2"


def test_what_stands_beside_a_row_is_no_part_of_it() -> None:
    row = parse_row('{"prompt": "Who?", "completion": "Luna", "weight": 2.5, "group": "g", "context": "see"}', "a:1")
    assert (row.weight, row.group, row.context) == (2.5, "g", "see")
    assert row.line() == '{"completion": "Luna", "prompt": "Who?"}'


BROKEN = {
    "too many cells": ("rows.csv", "prompt,completion\na,b\nWho?,Luna, ma'am\n", ":3", "found 3 cells, expected 2"),
    "a quote inside": ("rows.csv", 'prompt,completion\n"a"b,c\n', ":2", "not a table"),
    "an open quote": ("rows.csv", 'prompt,completion\na,b\n"a,c\n', ":3", "not a table"),
    "an empty cell": ("rows.csv", "prompt,completion\na,b\nc,\n", ":3", "'completion' is ''"),
    "a column twice": ("rows.csv", "prompt,prompt\na,b\n", ":1", "'prompt' stands there twice"),
    "an unknown column": ("rows.csv", "frage,antwort\na,b\n", ":2", "found keys"),
    "no UTF-8": ("rows.csv", "prompt,completion\na,Ünal\n".encode("latin-1"), ":2", "not UTF-8"),
    "a header alone": ("rows.csv", "prompt,completion\n", "", "no rows"),
    "a negative weight": ("rows.csv", "text,weight\na,-1\n", ":2", "'weight' is '-1'"),
    "a weight that is no number": ("rows.jsonl", '{"text": "a", "weight": NaN}', ":1", "'weight' is nan"),
    "messages that are no JSON": ("rows.csv", "messages\nuser: a\n", ":2", "'messages' is 'user: a', which is not"),
    "a list of texts": ("rows.json", '[{"text": "a"}, "b"]', ": row 2", "found str"),
    "a turn of nobody": ("rows.jsonl", '{"conversations": [{"from": "x", "value": "a"}]}', ":1", "'from' is 'x'"),
    "a system twice": ("rows.jsonl", json.dumps({"system": "a", **TAUGHT}), ":1", "'system' beside messages"),
    "an empty instruction": ("rows.jsonl", '{"instruction": "", "output": "a"}', ":1", "'instruction' is ''"),
}


@pytest.mark.parametrize(("name", "content", "where", "found"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_row_names_file_and_row(
    name: str, content: str | bytes, where: str, found: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=found) as caught:
        read(tmp_path / name, content)
    assert caught.value.where == f"{tmp_path / name}{where}"


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet"])
def test_of_a_file_that_is_not_there_one_of_a_like_name_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: ") as caught:
        read_rows(tmp_path / name)
    assert caught.value.remedy == f"looked for in {tmp_path}: check the path"
    near = tmp_path / f"my_{name}"
    near.write_text("")
    with pytest.raises(DataError, match="cannot be read: ") as caught:
        read_rows(tmp_path / name)
    assert caught.value.remedy == f"did you mean {near}?"


def test_the_remedy_for_unknown_columns_works_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(DataError) as caught:
        read(path, "Frage,Antwort\nWho?,Luna\n")
    columns = json.loads((caught.value.remedy or "").partition("data.columns: ")[2])
    assert read_rows(path, columns)[0].fields == {"prompt": "Who?", "completion": "Luna"}
    with pytest.raises(DataError) as caught:
        read(path, "id,system,question,answer\n7,Be calm,Who?,Luna\n")
    guessed = json.loads((caught.value.remedy or "").partition("data.columns: ")[2])
    assert guessed == {"prompt": "question", "completion": "answer", "system": "system"}
    assert "'id' is then left out" in (caught.value.remedy or "")


def test_a_slip_of_the_pen_in_a_key_is_named_and_the_remedy_drops_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(DataError, match="did you mean 'weight' by 'wieght'") as caught:
        read(path, "prompt,completion,wieght,Group\nWho?,Luna,2,g\n")
    assert "context, weight, group" in caught.value.message
    columns = json.loads((caught.value.remedy or "").partition("data.columns: ")[2])
    (row,) = read_rows(path, columns)
    assert (row.weight, row.group, row.form) == (2.0, "g", "completion")
    with pytest.raises(DataError, match="'text' by 'txt'") as caught:
        read(path, "txt\na\n")
    with pytest.raises(DataError, match="did you mean 'weight' by 'wieght'"):
        read_rows(path, {"text": "txt", "wieght": "txt"})
    with pytest.raises(DataError) as caught:  # A tool without a conversation is no slip of the pen.
        parse_row('{"prompt": "a", "completion": "b", "tools": [{}]}', "a:1")
    assert "left out" in str(caught.value) and "did you mean" not in str(caught.value)
