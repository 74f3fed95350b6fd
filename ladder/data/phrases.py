"""Texts as words, so that what two of them share is found whatever their spelling and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ladder.gates.probes import EDGES, UNSPACED, fold

WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+|[^\w\s{re.escape(EDGES)}]")
"""One character of a script without spaces, a word or number, or a sign that changes a meaning."""


def words_of(text: str) -> list[str]:
    """The words of a text, case-folded and composed, without sentence punctuation."""
    # Folding them all at once is faster than one by one. They are found first, because folding can split a letter.
    return fold(" ".join(WORD.findall(unicodedata.normalize("NFC", text)))).split()


def as_phrase(words: Sequence[str]) -> str:
    """Words between spaces, so that a phrase is found at whole words only."""
    return f" {' '.join(words)} "
