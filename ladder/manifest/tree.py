"""What holds for every key and value of a manifest before its fields are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ladder.manifest.problems import FieldPath, Problem, dotted, found
from ladder.manifest.syntax import MAX_DEPTH
from ladder.manifest.weight_averaging import REASON, REMEDY, asks_to_average_weights

_MOST_BITS = 10_000
"""Of a whole number: 3,000 digits. Python does not write out numbers of more than 4,300."""


def tree_problems(tree: dict[str, Any]) -> list[Problem]:
    """Weight averaging first, then ``${VAR}``, NaN, long numbers, odd characters, depth: each in the file's order."""
    averaging: list[Problem] = []
    others: list[Problem] = []
    for path, value in _walk((), tree):
        key = path[-1] if path else ""
        if isinstance(key, str) and asks_to_average_weights(key, value):
            averaging.append(Problem(dotted(path), REASON, REMEDY))
        if problem := _odd(path, key, value):
            others.append(problem)
    return averaging + others


def _walk(path: FieldPath, value: Any) -> Iterator[tuple[FieldPath, Any]]:
    yield path, value
    if len(path) >= MAX_DEPTH:
        return
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _walk((*path, key), child)


def _odd(path: FieldPath, key: str | int, value: Any) -> Problem | None:
    for text in (key, value):
        if isinstance(text, str) and (problem := _odd_text(path, text)):
            return problem
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(dotted(path), f"found {found(value)}, expected a finite number", "write a finite number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return Problem(dotted(path), "found a number of thousands of digits", "write a smaller one")
    if isinstance(value, dict | list) and len(path) >= MAX_DEPTH:
        return Problem(dotted(path[:3]), f"nested deeper than {MAX_DEPTH} levels", "a manifest needs at most five")
    return None


def _odd_text(path: FieldPath, text: str) -> Problem | None:
    if "${" in text:
        remedy = "write the value itself; ladder never interpolates variables. In a regular expression write [$]{"
        return Problem(dotted(path), f"found the placeholder in {found(text)}, expected a value", remedy)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return Problem(dotted(path), f"found a character that is no text in {found(text)}", "take it out")
    return None
