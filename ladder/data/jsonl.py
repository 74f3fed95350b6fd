"""JSON lines: what rows and probes have in common. Messages name file and line."""

from __future__ import annotations

import codecs
import errno
import json
from collections import Counter
from collections.abc import Iterator
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
