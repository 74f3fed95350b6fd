"""Training rows: what a record means, by which of its keys are there, and where it came from.

A row is one of four forms: a text, a prompt, a prompt with its completion, or a conversation. Records in other shapes
that people have (a system's words beside a prompt, instructions, turns of ShareGPT) are conversations, and
``data.columns`` says what any others mean. Messages name file and line or row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.data.records import Record, parse_object, read_records, shown
from ladder.errors import DataError
from ladder.manifest.sources import Hub


def check_text(key: str, value: Any, where: str) -> None:
    """See that a field is a text that can be encoded and is not empty.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{key!r} is {shown(value)}, expected a text that is not empty", where=where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key!r} holds half a surrogate pair", where=where, remedy="escape it as UTF-8") from error


FORMS = '{"text"}, {"prompt"}, {"prompt", "completion"} or {"messages"}'
SHAPES: dict[frozenset[str], str] = {
    frozenset({"text"}): "text",
    frozenset({"prompt"}): "prompt",
    frozenset({"prompt", "completion"}): "completion",
    frozenset({"messages"}): "messages",
    frozenset({"messages", "system"}): "messages",
    frozenset({"prompt", "completion", "system"}): "chat",
    frozenset({"user", "assistant"}): "chat",
    frozenset({"user", "assistant", "system"}): "chat",
    frozenset({"instruction", "output"}): "instruction",
    frozenset({"instruction", "output", "input"}): "instruction",
    frozenset({"instruction", "output", "system"}): "instruction",
    frozenset({"instruction", "output", "input", "system"}): "instruction",
    frozenset({"conversations"}): "sharegpt",
    frozenset({"conversations", "system"}): "sharegpt",
}
"""What a record is by the keys that say what is learned."""
BESIDE = ("context", "weight", "group")
"""What may stand beside every row: for teachers' eyes, how much it counts, and which rows are wordings of one thing."""
_TOOLS = "tools"
_OPTIONAL = ("system", "input", _TOOLS, *BESIDE)
_ROLES = ("system", "user", "assistant")
_SHAREGPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "call",
    "tool": "tool",
    "observation": "tool",
}
"""Who speaks in a turn of ShareGPT."""


@dataclass(frozen=True)
class Row:
    """One row as it was read: exactly one of the four forms, and its place for messages.

    A ``{"prompt"}`` row has no gold label: only teachers can say something about it.

    Args:
        fields: ``text``, ``prompt``, ``prompt`` and ``completion``, or ``messages`` with the ``tools`` that the chat
            template is told of, where there are any.
        context: what may be shown to teachers beside the row (``teachers.*.context``), and never to the student. Not
            left behind for descendants.
        weight: how much it counts in the loss beside rows of weight 1; 0 or more. Not left behind either.
        group: rows of one group are wordings of one thing. It plays no part in training.
    """

    fields: dict[str, Any]
    where: str
    context: str | None = None
    weight: float = 1.0
    group: str | None = None

    @property
    def form(self) -> str:
        """``text``, ``prompt``, ``completion`` or ``messages``."""
        return next(form for form in ("completion", "messages", "prompt", "text") if form in self.fields)

    @property
    def has_gold(self) -> bool:
        return self.form != "prompt"

    def line(self) -> str:
        """The row as a JSONL line without its newline."""
        return json.dumps(self.fields, ensure_ascii=False, sort_keys=True)

    @property
    def digest(self) -> str:
        """SHA-256 of ``line()`` in hex: the same in every file and whatever the order of its keys."""
        return hashlib.sha256(self.line().encode()).hexdigest()


def read_rows(source: Path | Hub, columns: Mapping[str, str] | None = None) -> list[Row]:
    """Read the rows of a file, a saved folder or a hub's dataset; empty lines are skipped.

    Args:
        columns: what to read a row's keys from (``data.columns``); other columns are then left out.

    Raises:
        DataError: something in it is no row, or it holds none. Names file and line or row.
        UsageError: a package that it takes is not installed.
    """
    rows = [row_of(record, columns) for record in read_records(source, FORMS)]
    if not rows:
        raise DataError("no rows", where=str(source), remedy=f"write one JSON object a line: {FORMS}")
    return rows


def parse_row(text: str, where: str) -> Row:
    """Read one line of JSONL.

    Raises:
        DataError: it is no row.
    """
    return row_of(Record(parse_object(text, where, FORMS), where))


def row_of(record: Record, columns: Mapping[str, str] | None = None) -> Row:
    """What a record means.

    Raises:
        DataError: it is no row. Names its place, and the column.
    """
    fields, where = _chosen(record, columns) if columns else dict(record.fields), record.where
    # A row without such a thing has an empty cell where others have one.
    fields = {key: value for key, value in fields.items() if key not in _OPTIONAL or value not in (None, "")}
    beside = {key: fields.pop(key) for key in BESIDE if key in fields}
    for key in {"context", "group"} & beside.keys():
        check_text(key, beside[key], where)
    weight = _weight(beside.get("weight", 1.0), where)
    tools = _listed(_TOOLS, fields.pop(_TOOLS), where) if _TOOLS in fields else None
    shape = SHAPES.get(frozenset(fields))
    if shape is None or (tools is not None and shape not in ("messages", "sharegpt")):
        raise _unknown(record, columns)
    known = _conversation(shape, fields, where) if shape in _TALKS else fields
    if shape not in _TALKS:
        for key, value in known.items():
            check_text(key, value, where)
    if tools is not None:
        if not all(isinstance(tool, dict) for tool in tools):
            raise DataError(f"'tools' is {shown(tools)}, expected a list of {_OBJECTS[_TOOLS]}", where=where)
        known |= {_TOOLS: tools}
    return Row(known, where, beside.get("context"), weight, beside.get("group"))


_TALKS = ("messages", "chat", "instruction", "sharegpt")


def _chosen(record: Record, columns: Mapping[str, str]) -> dict[str, Any]:
    """The record under the keys of a row, without what is not asked for."""
    for key, column in columns.items():
        if column not in record.fields and key not in _OPTIONAL:
            raise DataError(
                f"has no column {shown(column)}, which data.columns names for {key!r}; it has "
                f"{', '.join(map(repr, record.fields)):.200}",
                where=record.where,
                remedy="name a column that is there",
            )
    return {key: record.fields[column] for key, column in columns.items() if column in record.fields}


_ASKS = ("prompt", "question", "query", "instruction", "user", "input")
_SAYS = ("completion", "answer", "response", "reply", "assistant", "output")
"""What people call what is asked and what is answered, for a guess that a message makes."""


def _unknown(record: Record, columns: Mapping[str, str] | None) -> DataError:
    found = f"data.columns {shown(dict(columns))}" if columns else f"keys {shown(sorted(record.fields))}"
    remedy, names = "remove or rename the other keys", list(record.fields)
    if len(names) > 1 and not columns:
        asks = next((name for name in _ASKS if name in names), names[0])
        says = next((name for name in _SAYS if name in names and name != asks), None)
        guess = {"prompt": asks, "completion": says or next(name for name in names if name != asks)}
        guess |= {key: key for key in ("system",) if key in names and key not in guess.values()}
        told = f"remove or rename the other keys, or say which is which, such as data.columns: {json.dumps(guess)}"
        remedy = told if len(told) < 250 else "remove or rename the other keys, or name them in data.columns"
    return DataError(f"found {found}, expected {FORMS}", where=record.where, remedy=remedy)


def _weight(value: Any, where: str) -> float:
    try:
        weight = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise DataError(
            f"'weight' is {shown(value)}, expected a number of 0 or more",
            where=where,
            remedy="write 1 for a row that counts like any other, or leave it out",
        )
    return weight


def _listed(key: str, value: Any, where: str) -> list[Any]:
    """A list, or the JSON text of one."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{key!r} is {shown(value)}, which is not JSON: {error}", where=where) from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{key!r} is {shown(value)}, expected a list of {_OBJECTS[key]}", where=where)
    return found


_OBJECTS = {"messages": "role and content", "conversations": "from and value", _TOOLS: "JSON Schemas"}


def _conversation(shape: str, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The messages that a record of this shape stands for."""
    if shape == "messages":
        messages = _listed("messages", fields["messages"], where)
    elif shape == "sharegpt":
        turns = _listed("conversations", fields["conversations"], where)
        messages = [_turn(turn, where) for turn in turns]
    else:
        asked = {"chat": "prompt" if "prompt" in fields else "user", "instruction": "instruction"}[shape]
        said = next(key for key in ("completion", "assistant", "output") if key in fields)
        for key in (asked, said, *({"input"} & fields.keys())):
            check_text(key, fields[key], where)
        words = "\n\n".join(fields[key] for key in (asked, "input") if key in fields)
        messages = [{"role": "user", "content": words}, {"role": "assistant", "content": fields[said]}]
    if "system" in fields:
        check_text("system", fields["system"], where)
        if isinstance(messages[0], dict) and messages[0].get("role") == "system":
            found = "'system' beside messages that begin with a system's"
            raise DataError(found, where=where, remedy="write it once")
        messages = [{"role": "system", "content": fields["system"]}, *messages]
    return {"messages": _checked(messages, where)}


def _turn(turn: Any, where: str) -> dict[str, Any]:
    """A turn of ShareGPT as a message; one that is a message already stays one."""
    if not isinstance(turn, dict) or set(turn) != {"from", "value"}:
        if isinstance(turn, dict) and "role" in turn:
            return dict(turn)
        raise DataError(f"found turn {shown(turn)}, expected from and value", where=where)
    role = _SHAREGPT.get(turn["from"]) if isinstance(turn["from"], str) else None
    if role is None:
        expected = ", ".join(_SHAREGPT)
        raise DataError(f"'from' is {shown(turn['from'])}, expected one of {expected}", where=where)
    if role != "call":
        return {"role": role, "content": turn["value"]}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": _call(turn, where)}]}


def _call(turn: Mapping[str, Any], where: str) -> Any:
    try:
        return json.loads(turn["value"])
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a function_call is {shown(turn['value'])}, expected JSON", where=where) from error


def _checked(messages: Sequence[Any], where: str) -> list[dict[str, Any]]:
    """The messages, when they are a conversation that ends with the assistant's answer."""
    found: list[dict[str, Any]] = []
    for given in messages:
        message = dict(given) if isinstance(given, dict) else {}
        calls = "tool_calls" in message
        keys = {"role", "content", *({"tool_calls"} if calls else ())}
        hears = message.get("role") == "tool" and bool(found) and found[-1]["role"] in ("tool", "assistant")
        allowed = keys | ({"name", "tool_call_id"} if hears else set())
        speaks = message.get("role") in _ROLES and (not calls or message.get("role") == "assistant")
        needed = {"role"} if calls else {"role", "content"}
        if not needed <= set(message) <= allowed or not (speaks or hears):
            raise DataError(
                f"found message {shown(given)}, expected role (one of {', '.join(_ROLES)}, or tool behind an "
                "assistant's tool_calls) and content",
                where=where,
            )
        if calls:
            message |= {"content": message.get("content") or "", "tool_calls": _calls(message, where)}
        if not calls or message["content"]:
            check_text("content", message["content"], where)
        found.append(message)
    if found[0]["role"] == "assistant":
        raise DataError(
            "the first message is the assistant's",
            where=where,
            remedy='begin with what it answers, or write the row as {"text"}',
        )
    if found[-1]["role"] != "assistant":
        raise DataError(
            f"the last message is the {found[-1]['role']}'s", where=where, remedy="end with the assistant's answer"
        )
    return found


def _calls(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The calls of a message; arguments that are the JSON text of an object, as some APIs give them, as that object."""
    calls = message["tool_calls"]
    found: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, dict) else None
        given = function.get("arguments", {}) if isinstance(function, dict) else None
        with suppress(ValueError, RecursionError):
            given = json.loads(given) if isinstance(given, str) else given
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not isinstance(given, dict):
            found = []
            break
        named = {key: call[key] for key in ("id",) if key in call}
        found.append({"type": "function", **named, "function": {"name": function["name"], "arguments": given}})
    if not found:
        raise DataError(
            f"'tool_calls' is {shown(calls)}, expected a list of calls",
            where=where,
            remedy='such as [{"function": {"name": "weather", "arguments": {"city": "Lima"}}}]',
        )
    return found


def message_text(message: Mapping[str, Any]) -> str:
    """What is said in a message, with the calls that it makes."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join(filter(None, [message["content"], *calls]))
