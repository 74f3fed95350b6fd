"""JSON lines, which rows and probes have in common; training rows in the four usual forms, and where each came from.

Messages name file and line.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ladder.errors import DataError

LONGEST_LINE = 10_000_000
"""Bytes. A row is cut to a few thousand tokens; a longer line is a file without line ends."""
_SHOWN = 60
"""Characters of a value that a message quotes."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1. Only a newline ends a line. A byte order mark is left out.

    Raises:
        DataError: the file cannot be read or is no regular file, or a line is not UTF-8 or longer than
            ``LONGEST_LINE``.
    """
    try:
        with _opened(path) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
                where = f"{path}:{number}"
                if len(line) > LONGEST_LINE:
                    message = f"found a line of more than {LONGEST_LINE:,} bytes"
                    raise DataError(message, where=where, remedy="end each row with a newline, or split the text")
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, _decoded(line, where)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _opened(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # a pipe or a device would never end
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: {error.reason} at byte {error.start + 1} of the line"
        raise DataError(message, where=where, remedy="save the file as UTF-8") from None


def parse_object(line: str, where: str, expected: str) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        DataError: it is something else, or a key stands in it twice; ``expected`` says what it should be.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"the key {shown(twice)} stands there twice", where=where, remedy="keep one of them")
        return found

    try:
        fields = json.loads(line, object_pairs_hook=without_duplicates)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=where, remedy=f"one JSON object a line: {expected}") from error
    if not isinstance(fields, dict):
        raise DataError(f"found {type(fields).__name__}, expected {expected}", where=where)
    return fields


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


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


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
