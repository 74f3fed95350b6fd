"""One thing that is wrong with a manifest, and the single error that lists all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ladder.errors import ManifestError

FieldPath = tuple[str | int, ...]
_MOST_LISTED = 20
_LONGEST_FOUND = 60
_LONGEST_MESSAGE = 600


@dataclass(frozen=True)
class Problem:
    """What was found and expected at one field, and what to do about it."""

    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {shortened(self.message)} ({self.remedy})"


def refuse(file: str | Path, problems: Sequence[Problem]) -> ManifestError:
    """The one error for a non-empty list of problems; ``where`` is the file and the first field."""
    first, *others = problems
    where = f"{file}: {first.field}" if first.field else str(file)
    message = shortened(first.message)
    if not others:
        return ManifestError(message, where=where, remedy=first.remedy)
    lines = [f"{message} ({first.remedy})", *(f"  also {other}" for other in others[: _MOST_LISTED - 1])]
    if len(problems) > _MOST_LISTED:
        lines.append(f"  and {len(problems) - _MOST_LISTED} more")
    return ManifestError("\n".join(lines), where=where, remedy=f"{len(problems)} problems in all")


def dotted(path: FieldPath) -> str:
    """``("data", "train", 0)`` as ``data.train.0``; odd keys are quoted and cut."""
    return ".".join(str(step) if isinstance(step, int) or _plain(step) else _cut(repr(step)) for step in path)


def found(value: object) -> str:
    """How a value reads in the file, cut to a length that fits a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    return _cut(repr(value)) if isinstance(value, int | float | str) else f"a {type(value).__name__}"


def shortened(message: str) -> str:
    """A message that quotes something of any length, without its middle: the reason stands at the end."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2
    return f"{message[:half]} ... {message[-half:]}"


def _plain(step: str) -> bool:
    return re.fullmatch(rf"[A-Za-z0-9_-]{{1,{_LONGEST_FOUND}}}", step) is not None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_FOUND else f"{text[: _LONGEST_FOUND - 3]}..."
