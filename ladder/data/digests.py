"""Rows by digest only: which ones a generation learned, left behind, or must never learn again. One SHA-256 a line.

A digest hides a row, not that somebody who has the row recognises it; that is what these lists are for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ladder.data.jsonl import read_lines, shown
from ladder.errors import DataError

LEARNED = "rows.sha256"
"""Of every row that a generation was trained on as new."""
ERASED = "erased.sha256"
"""Of rows that were erased from a generation: its descendants refuse them."""
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_lines(digests: Iterable[str]) -> str:
    """Each digest once, sorted, a line each."""
    return "".join(f"{digest}\n" for digest in sorted(set(digests)))


def read_digests(path: Path) -> frozenset[str]:
    """The digests of a file; none where there is no such file.

    Raises:
        DataError: a line is no SHA-256 in hex. Names file and line.
    """
    lines = read_lines(path) if path.is_file() else ()
    return frozenset(_checked(line.strip(), f"{path}:{number}") for number, line in lines)


def _checked(digest: str, where: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise DataError(f"found {shown(digest)}, expected 64 hexadecimal digits", where=where)
    return digest
