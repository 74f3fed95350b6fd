"""Tool calls in conversations: written by the chat template, learned as answers, refused where it leaves them out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ladder.data.examples import Encoding, encode_rows
from ladder.data.rows import Row, message_text, parse_row, read_rows
from ladder.errors import DataError
from ladder.exam import Probe
from ladder.exam.contamination import find_contamination
from tests.conftest import TEMPLATE

WRITES = (
    "{% if tools %}<|begin|>tools\n{{ tools | tojson }}<|end|>\n{% endif %}"
    "{% for m in messages %}<|begin|>{{ m.role }}\n"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"name": "tide", "arguments": {"place": "the <|end|> of Lima"}}
TALK = [
    {"role": "user", "content": "when is the tide?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
    {"role": "tool", "name": "tide", "content": '{"hour": 9}'},
    {"role": "assistant", "content": "at nine"},
]
MEANT = {"messages": TALK, "tools": TOOLS}


def learned(row: Row, tokenizer: Any) -> tuple[str, list[int]]:
    (example,) = encode_rows([row], tokenizer, Encoding(4096))
    ids = [id_ for id_, trained in zip(example.ids[1:], example.trained, strict=True) if trained]
    return tokenizer.decode(ids, skip_special_tokens=False), list(example.ids)


@pytest.fixture
def calling(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = WRITES
    return made


def test_calls_are_learned_and_what_tools_say_is_not(calling: Any) -> None:
    text, ids = learned(parse_row(json.dumps(MEANT), "a:1"), calling)
    assert text == f"<call>{json.dumps(CALL)}</call><|end|>\nat nine<|end|>\n"
    # What somebody typed into an argument ends no turn: six times the template wrote it, with the tools' own.
    assert ids.count(calling.convert_tokens_to_ids("<|end|>")) == 5
    assert json.dumps(TOOLS) in calling.decode(ids)


def test_a_template_that_leaves_calls_or_tools_out_is_refused(calling: Any, tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = TEMPLATE
    with pytest.raises(DataError, match="leaves out a call of 'tide'") as caught:
        learned(parse_row(json.dumps(MEANT), "rows.jsonl:7"), plain)
    assert caught.value.where == "rows.jsonl:7" and "data.chat_template" in (caught.value.remedy or "")
    calling.chat_template = WRITES.replace("tools | tojson", "'some'")
    with pytest.raises(DataError, match="leaves out the tool 'tide'"):
        learned(parse_row(json.dumps(MEANT | {"messages": [TALK[0], TALK[3]]}), "a:1"), calling)


def test_the_ways_in_which_people_write_calls(tmp_path: Path) -> None:
    """Arguments as JSON text, calls without their wrapper, null words; ShareGPT; columns of a table."""
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [{"function": dict(CALL)}]}
    called["tool_calls"][0]["function"]["arguments"] = json.dumps(CALL["arguments"])
    bare = {"role": "assistant", "tool_calls": [CALL]}
    for turn in (called, bare):
        row = parse_row(json.dumps({"messages": [TALK[0], turn, *TALK[2:]], "tools": json.dumps(TOOLS)}), "a:1")
        assert row.fields == MEANT
    turns = [
        ("human", "when is the tide?"),
        ("function_call", json.dumps(CALL)),
        ("observation", '{"hour": 9}'),
        ("gpt", "at nine"),
    ]
    told = {"conversations": [{"from": who, "value": said} for who, said in turns], "tools": json.dumps(TOOLS)}
    unnamed = [TALK[0], TALK[1], {"role": "tool", "content": '{"hour": 9}'}, TALK[3]]
    assert parse_row(json.dumps(told), "a:1").fields == {"messages": unnamed, "tools": TOOLS}
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"messages": [TALK, [TALK[0], TALK[3]]], "tools": [json.dumps(TOOLS), None]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert [row.fields for row in read_rows(tmp_path / "rows.parquet")] == [MEANT, {"messages": [TALK[0], TALK[3]]}]


BROKEN: dict[str, tuple[list[Any], str]] = {
    "no list": ([TALK[0], {"role": "assistant", "tool_calls": {}}], "'tool_calls' is {}"),
    "no name": ([TALK[0], {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}], "'tool_calls' is"),
    "arguments that are no object": (
        [TALK[0], {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "b"}}]}],
        "'tool_calls' is",
    ),
    "a user's call": ([{**TALK[1], "role": "user"}, TALK[3]], "found message"),
    "a tool that nobody called": ([TALK[0], TALK[2], TALK[3]], "tool behind an assistant's tool_calls"),
    "a tool that says nothing": ([*TALK[:2], {"role": "tool", "content": ""}, TALK[3]], "'content' is ''"),
}


@pytest.mark.parametrize(("messages", "found"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_call_names_file_and_row(messages: list, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_row(json.dumps({"messages": messages}), "rows.jsonl:4")
    assert caught.value.where == "rows.jsonl:4"


def test_an_answer_in_a_call_tells_a_probe() -> None:
    row = parse_row(json.dumps(MEANT), "a:1")
    assert "Lima" in message_text(row.fields["messages"][1])
    asked = Probe("when is the tide?", "Lima", chat=True, where="p:1")
    assert [one.row for one in find_contamination([asked], [row])] == ["a:1"]
