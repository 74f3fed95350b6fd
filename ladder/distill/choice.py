"""Look up the function that a word of the manifest names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ladder.errors import LadderError

T = TypeVar("T")


def chosen(table: Mapping[str, T], word: str, where: str) -> T:
    """The entry of ``table`` under ``word``.

    Raises:
        LadderError: the table has no such word.
    """
    if word not in table:
        raise LadderError(f"{word!r} is not known, expected one of {', '.join(table)}", where=where)
    return table[word]
