"""Training rows: what a record means, by which of its keys are there, and where it came from.

A row is one of four forms: a text, a prompt, a prompt with its completion, or a conversation. Records in other shapes
that people have (a system's words beside a prompt, instructions, turns of ShareGPT) are conversations, and
``data.columns`` says what any others mean. Messages name file and line or row.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


class Naming(NamedTuple):
    """How whoever reads rows says which column is what, for messages.

    Args:
        place: ``data.columns`` of a manifest, or the option ``--column``.
        keys: what a question and its answer are called, where a message proposes it.
    """

    place: Literal["data.columns", "--column"]
    keys: tuple[str, str] = ("prompt", "completion")

    def written(self, columns: Mapping[str, str]) -> str:
        """The columns as they are written there."""
        if self.place == "data.columns":
            return f"data.columns: {json.dumps(dict(columns), ensure_ascii=False)}"
        return " ".join(f"--column {shlex.quote(f'{key}={column}')}" for key, column in columns.items())


IN_MANIFEST, AS_OPTION = Naming("data.columns"), Naming("--column")


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


def read_rows(source: Path | Hub, columns: Mapping[str, str] | None = None, naming: Naming = IN_MANIFEST) -> list[Row]:
    """Read the rows of a file, a saved folder or a hub's dataset; empty lines are skipped.

    Args:
        columns: what to read a row's keys from (``data.columns``); other columns are then left out.
        naming: where ``columns`` were said.

    Raises:
        DataError: something in it is no row, or it holds none. Names file and line or row.
        UsageError: a package that it takes is not installed.
    """
    rows = [row_of(record, columns, naming) for record in read_records(source, FORMS)]
    if not rows:
        raise DataError("no rows", where=str(source), remedy=f"write one JSON object a line: {FORMS}")
    return rows


def parse_row(text: str, where: str) -> Row:
    """Read one line of JSONL.

    Raises:
        DataError: it is no row.
    """
    return row_of(Record(parse_object(text, where, FORMS), where))


def row_of(record: Record, columns: Mapping[str, str] | None = None, naming: Naming = IN_MANIFEST) -> Row:
    """What a record means; ``columns`` and ``naming`` as for ``read_rows``.

    Raises:
        DataError: it is no row. Names its place, and the column.
    """
    fields, where = _chosen(record, columns, naming) if columns else dict(record.fields), record.where
    # A row without such a thing has an empty cell where others have one.
    fields = {key: value for key, value in fields.items() if key not in _OPTIONAL or value not in (None, "")}
    beside = {key: fields.pop(key) for key in BESIDE if key in fields}
    for key in {"context", "group"} & beside.keys():
        check_text(key, beside[key], where)
    weight = _weight(beside.get("weight", 1.0), where)
    tools = _listed(_TOOLS, fields.pop(_TOOLS), where) if _TOOLS in fields else None
    shape = SHAPES.get(frozenset(fields))
    if shape is None or (tools is not None and shape not in ("messages", "sharegpt")):
        raise _unknown(record, columns, naming)
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


def _chosen(record: Record, columns: Mapping[str, str], naming: Naming) -> dict[str, Any]:
    """The record under the keys of a row, without what is not asked for."""
    for key, column in columns.items():
        if column not in record.fields and key not in _OPTIONAL:
            raise DataError(
                f"has no column {shown(column)}, which {naming.place} names for {key!r}; it has "
                f"{', '.join(map(repr, record.fields)):.200}",
                where=record.where,
                remedy="name a column that is there",
            )
    return {key: record.fields[column] for key, column in columns.items() if column in record.fields}


_ASKS = ("prompt", "question", "query", "instruction", "user", "input")
_SAYS = ("completion", "answer", "response", "reply", "assistant", "output")
"""What people call what is asked and what is answered, for a guess that a message makes."""


def _unknown(record: Record, columns: Mapping[str, str] | None, naming: Naming) -> DataError:
    """What was found, what is a row, and how to say which key is which: by what they are nearly called, else by what
    people call such keys."""
    names = list(columns or record.fields)
    slips, slip = slips_of(names, _KEYS), slips_text(names, _KEYS)
    expected = f"expected {FORMS}, and beside them {', '.join(BESIDE)}, of a conversation also system"
    if columns:
        found = f"found {naming.written(columns)}, {expected}"
        return DataError(found, where=record.where, remedy=slip + "name the keys of one of these, and no others")
    guess = _guessed(names, slips, naming)
    remedy = slip + "remove or rename the other keys"
    if guess:
        left = [name for name in names if name not in guess.values()]
        without = f" ({', '.join(map(repr, left))} is then left out)" if left else ""
        told = f"{remedy}, or say which is which{without}, such as {naming.written(guess)}"
        remedy = told if len(told) < _LONGEST_GUESS else f"{remedy}, or name them in {naming.place}"
    return DataError(f"found keys {shown(sorted(names))}, {expected}", where=record.where, remedy=remedy)


_KEYS = tuple(dict.fromkeys([*(key for shape in SHAPES for key in sorted(shape)), _TOOLS, *BESIDE]))
_LONGEST_GUESS = 300
"""Characters of a remedy that says which key is which."""


def slips_of(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Of names that are no known key the one that each is a slip of the pen for, where no other name is that key."""
    strange = [name for name in names if name not in known]
    close = {name: get_close_matches(name[:100].lower(), known, n=1, cutoff=0.8) for name in strange}
    return {name: found[0] for name, found in close.items() if found and found[0] not in names}


def slips_text(names: Collection[str], known: Collection[str]) -> str:
    """A question for those, as a remedy begins; empty where there is none."""
    asked = " and ".join(f"{key!r} by {name!r}" for name, key in slips_of(names, known).items())
    return f"did you mean {asked}? " if asked else ""


def _guessed(names: Sequence[str], slips: Mapping[str, str], naming: Naming) -> dict[str, str]:
    """Which key is which, as far as their names say it; empty where they say nothing."""
    meant = {slips.get(name, name): name for name in names}
    beside = {key: name for key, name in meant.items() if key in ("system", *BESIDE)}
    talks = not {"messages", "conversations"}.isdisjoint(meant)
    known = {key: name for key, name in meant.items() if key in _KEYS and (talks or key != _TOOLS)}
    if frozenset(known) - {_TOOLS, *BESIDE} in SHAPES:
        return known
    rest = [name for name in names if name not in beside.values()]
    if len(rest) < 2:
        return {}
    asks = next(_called(_ASKS, rest), rest[0])
    others = [name for name in rest if name != asks]
    return dict(zip(naming.keys, (asks, next(_called(_SAYS, others), others[0])), strict=True)) | beside


def _called(words: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """The names that are one of these words, or have it among theirs."""
    return (name for word in words for name in names if word in re.split(r"[\W_]+", name.lower()))


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
