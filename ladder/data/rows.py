"""Training rows in the four usual JSONL forms, and where each came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.data.jsonl import check_text, parse_object, read_lines, shown
from ladder.errors import DataError

_FORMS = '{"text"}, {"prompt"}, {"prompt", "completion"} or {"messages"}'
_KEYS = ({"text"}, {"prompt"}, {"prompt", "completion"}, {"messages"})
_CONTEXT = "context"
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Row:
    """One row as it was read: exactly one of the four forms, and its place for messages.

    A ``{"prompt"}`` row has no gold label: only teachers can say something about it.

    Args:
        context: what may be shown to teachers beside the row (``teachers.*.context``), and never to the student. Not
            left behind for descendants.
    """

    fields: dict[str, Any]
    where: str
    context: str | None = None

    @property
    def form(self) -> str:
        """``text``, ``prompt``, ``completion`` or ``messages``."""
        return "completion" if "completion" in self.fields else next(iter(self.fields))

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


def read_rows(path: Path) -> list[Row]:
    """Read a JSONL file; empty lines are skipped.

    Raises:
        DataError: a line is no JSON object of one of the four forms, or the file holds no row. Names file and line.
    """
    rows = [parse_row(text, f"{path}:{number}") for number, text in read_lines(path)]
    if not rows:
        raise DataError("no rows", where=str(path), remedy=f"write one JSON object a line: {_FORMS}")
    return rows


def parse_row(text: str, where: str) -> Row:
    """Read one line of JSONL.

    Raises:
        DataError: it is no row.
    """
    fields = parse_object(text, where, _FORMS)
    context = fields.pop(_CONTEXT, None)
    if context is not None:
        check_text(_CONTEXT, context, where)
    if set(fields) not in _KEYS:
        found = f"keys {shown(sorted(fields))}"
        raise DataError(f"found {found}, expected {_FORMS}", where=where, remedy="remove or rename the other keys")
    for key, value in fields.items():
        _check_messages(value, where) if key == "messages" else check_text(key, value, where)
    return Row(fields, where, context)


def _check_messages(messages: Any, where: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"'messages' is {shown(messages)}, expected a list of role and content", where=where)
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in _ROLES:
            raise DataError(
                f"found message {shown(message)}, expected role (one of {', '.join(_ROLES)}) and content", where=where
            )
        check_text("content", message["content"], where)
    if messages[0]["role"] == "assistant":
        raise DataError(
            "the first message is the assistant's",
            where=where,
            remedy='begin with what it answers, or write the row as {"text"}',
        )
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the last message is the {messages[-1]['role']}'s", where=where, remedy="end with the assistant's answer"
        )
