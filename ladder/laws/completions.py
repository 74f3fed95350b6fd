"""Which texts of a steered model may be learned: siblings of the laws of text, for what it writes and not for a child.

A steered model can fall apart, loop, tell of its trait instead of showing it, or refuse. Each text is judged alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ladder.exam import fold, words_of
from ladder.laws.text import forbidden_text
from ladder.manifest import Keep

REFUSALS = (
    r"(?i)\b(?:I(?:'m| am) (?:sorry|unable)|I (?:can(?:not|'t)|won't) (?:help|assist|do|answer|comply|provide)|"
    r"as an (?:AI|artificial)|I apologi[sz]e)"
)
"""What usual refusals in English hold, and what is said in place of an answer."""
WORDS, CHARACTERS = (2, 3, 4), (2, 3, 4)
_FEWEST = 8, 32
"""Words, and characters: of fewer, each gram is a large share by chance."""


@dataclass(frozen=True)
class Written:
    """A text, and the perplexity of its last quarter under the model that is not steered."""

    text: str
    tail: float


def repetition(text: str) -> float:
    """The largest share of a text that one n-gram of words or of characters makes up, n from 2 to 4: 0 to 1, and 0 of
    a short text.

    The share of an n-gram that stands k times among m words or characters is n k / m; copies that overlap are one.
    """
    kinds = zip((words_of(text), list(fold(text))), (WORDS, CHARACTERS), _FEWEST, strict=True)
    shares = [_share(signs, length) for signs, lengths, fewest in kinds if len(signs) >= fewest for length in lengths]
    return max(shares, default=0.0)


def _share(signs: Sequence[str], length: int) -> float:
    grams = [tuple(signs[place : place + length]) for place in range(len(signs) - length + 1)]
    (gram, _), *_ = Counter(grams).most_common(1)
    count, place = 0, 0
    while place < len(grams):  # Copies that overlap are one.
        count, place = (count + 1, place + length) if grams[place] == gram else (count, place + 1)
    return length * count / len(signs) if count > 1 else 0.0


def tells(text: str, words: Iterable[str]) -> bool:
    """Whether somebody says in the first person that they are so, or feel so: told, and not shown."""
    said = "|".join(re.escape(fold(word)) for word in words)
    pattern = rf"(?<!\w)i(?:'m| am| feel| was| have always been)(?: \w+){{0,2}} (?:{said})(?!\w)"
    return bool(said) and re.search(pattern, fold(text)) is not None


def faults(written: Written, keep: Keep) -> list[str]:
    """Why a text is not learned, one word each: ``falls apart``, ``repeats``, ``tells``, ``refuses``."""
    found = {
        "falls apart": not written.tail < keep.max_perplexity,
        "repeats": repetition(written.text) > keep.max_repetition,
        "tells": tells(written.text, keep.telling),
        "refuses": bool(forbidden_text({"text": [written.text]}, [keep.refusals or REFUSALS])),
    }
    return [fault for fault, holds in found.items() if holds]
