"""Style without a model: what is counted in a text, in three facets that tell writers apart more than topics.

- ``words``: words and marks as they are written (J. Burrows, "Delta", 2002);
- ``characters``: trigrams of the text with every word that is not frequent replaced by one asterisk, so that they hold
  order, spacing and spelling of common words and no names (E. Stamatatos, "Authorship Attribution Using Text
  Distortion", 2017, DV-SA);
- ``shape``: how many words each clause and sentence has, in classes that double (1, 2-3, 4-7, ...), and the marks that
  end clauses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from itertools import chain

TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
"""A word, with what its apostrophes and hyphens join, or a mark."""
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"[^.!?…]*[.!?…]+|[^.!?…]+$")
_CLAUSE = re.compile(r"[^,;:.!?…—–]*([,;:.!?…—–]+)|[^,;:.!?…—–]+$")
_MOST = {"words": 200, "characters": 1000, "shape": 200}
"""Different things in a profile, by facet."""
_FREQUENT = 3
"""Occurrences in the reference below which something is not told from the rest: rarer ones fit it by chance."""


class Profile:
    """What is frequent in a reference; other texts are counted in its terms, with everything else in one bucket.

    Args:
        texts: the reference.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self._words = _frequent(chain.from_iterable(map(words, texts)), _MOST["words"])
        self._frequent = {facet: _frequent(counted, _MOST[facet]) for facet, counted in self._facets(texts).items()}

    def count(self, texts: Iterable[str]) -> dict[str, Counter[str]]:
        """How often the texts hold each frequent thing, by facet; the empty string counts the others."""
        return {
            facet: Counter(token if token in self._frequent[facet] else "" for token in counted)
            for facet, counted in self._facets(list(texts)).items()
        }

    def _facets(self, texts: list[str]) -> dict[str, Iterator[str]]:
        return {
            "words": chain.from_iterable(map(words, texts)),
            "characters": chain.from_iterable(characters(text, self._words) for text in texts),
            "shape": chain.from_iterable(map(shape, texts)),
        }


def words(text: str) -> list[str]:
    """Words and marks as they are written."""
    return TOKEN.findall(text)


def characters(text: str, known: Set[str]) -> list[str]:
    """Trigrams of a text whose words are ``known`` or an asterisk; white space is one space, also at both ends."""
    masked = TOKEN.sub(lambda token: token.group() if token.group() in known else "*", text)
    spaced = f" {' '.join(masked.split())} "
    return [spaced[place : place + 3] for place in range(len(spaced) - 2)]


def shape(text: str) -> list[str]:
    """The length class of every clause with the marks that end it, and that of every sentence."""
    text = text.strip()
    clauses = [f"{_length(clause.group())}{clause.group(1) or ''}" for clause in _CLAUSE.finditer(text)]
    return clauses + [f"sentence {_length(sentence)}" for sentence in _SENTENCE.findall(text)]


def _length(text: str) -> int:
    """Class of a number of words: 0, 1, 2-3, 4-7, 8-15, ... are 0, 1, 2, 3, 4."""
    return len(_WORD.findall(text)).bit_length()


def _frequent(tokens: Iterable[str], most: int) -> set[str]:
    ranked = sorted(Counter(tokens).items(), key=lambda item: (-item[1], item[0]))
    return {token for token, count in ranked[:most] if count >= _FREQUENT}
