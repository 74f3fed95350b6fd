"""JSON lines: what rows and probes have in common. Messages name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladder.errors import DataError

_SHOWN = 60
"""Characters of a value that a message quotes."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1. Only a newline ends a line.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8.
    """
    number = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", where=f"{path}:{number}", remedy="save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def parse_object(line: str, where: str, expected: str) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        DataError: it is something else; ``expected`` says what it should be.
    """
    try:
        fields = json.loads(line)
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
