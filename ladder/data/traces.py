"""Traces of some rows in other texts: what has to go when a person asks for their rows to be erased.

A row is found again by its digest. In a text that is not the row itself its traces are, in words:

- ``GRAM`` consecutive words of what was answered in it, or of its text (a shorter one as a whole);
- what was asked in it as a whole, because questions of different people begin alike;
- question and answer together, where each is short.

And the other way round: a text that stands in a row as a whole. Nothing of fewer than ``LEAST`` words is a trace, as it
stands everywhere by chance, and a system's words belong to nobody. A phrase of a persona that ends many answers is
shorter than ``GRAM``, so it is no trace by itself. Whoever must find less than that adds it as a row: ``{"text"}``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from ladder.data.contamination import GRAM
from ladder.data.phrases import as_phrase, words_of
from ladder.data.rows import Row

LEAST = 4
"""Words of a text that is sought as a whole."""


class Traces:
    """What is left of some rows, wherever it stands.

    Args:
        rows: all rows of the person.

    Attributes:
        digests: of the different rows.
        short: how many of these have fewer than ``LEAST`` words, and are found by their digest only.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.digests = frozenset(row.digest for row in rows)
        sought: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        for row in rows:
            for words in _sought(row):
                sought[len(words)].add(tuple(words))
        self._sought = sorted(sought.items())
        wholes = [list(map(words_of, _wholes(row))) for row in {row.digest: row for row in rows}.values()]
        self.short = sum(len(words) < LEAST for words, *_ in wholes)
        said = [words for whole in wholes for words in whole]
        self._said = "\n".join(map(as_phrase, said))
        self._grams = {tuple(words[at : at + LEAST]) for words in said for at in range(len(words) - LEAST + 1)}

    def in_text(self, text: str) -> bool:
        """Whether a text holds a trace, or is one itself."""
        words = words_of(text)
        return any(
            self._gives_away(shared) or (len(shared) == len(words) and as_phrase(words) in self._said)
            for shared in self._shared(words)
        )

    def in_cut(self, text: str) -> bool:
        """Whether ``LEAST`` consecutive words of a row stand in a text that quotes something and cuts it anywhere."""
        return any(self._shared(words_of(text)))

    def _shared(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """The stretches of a text in which every ``LEAST`` consecutive words are a row's: a trace lies within one.

        Nearly no words of other people's texts do, so that a search takes about as long as its texts.
        """
        begun = 0
        for at in range(max(len(words) - LEAST, -1) + 2):  # What begins last is too short, and ends every stretch.
            if tuple(words[at : at + LEAST]) not in self._grams:
                if at > begun:
                    yield words[begun : at + LEAST - 1]
                begun = at + 1

    def _gives_away(self, shared: Sequence[str]) -> bool:
        return any(
            tuple(shared[at : at + size]) in sought
            for size, sought in takewhile(lambda item: item[0] <= len(shared), self._sought)
            for at in range(len(shared) - size + 1)
        )

    def in_texts(self, texts: Sequence[str]) -> bool:
        """Whether one of these texts holds a trace, or all together do, with a space between them or with none."""
        return any(map(self.in_text, [*texts, " ".join(texts), "".join(texts)]))


def _sought(row: Row) -> Iterator[list[str]]:
    """The runs of words that give a row away."""
    asked, said = _asked_and_said(row)
    for text in said:
        words = words_of(text)
        size = min(GRAM, len(words))
        yield from _long_enough(words[start : start + size] for start in range(len(words) - size + 1))
    yield from _long_enough(words_of(text) for text in [*asked, *_wholes(row)])


def _long_enough(phrases: Iterable[list[str]]) -> Iterator[list[str]]:
    return (words for words in phrases if len(words) >= LEAST)


def _asked_and_said(row: Row) -> tuple[list[str], list[str]]:
    if row.form == "messages":
        spoken = row.fields["messages"]
        asked = [message["content"] for message in spoken if message["role"] == "user"]
        return asked, [message["content"] for message in spoken if message["role"] == "assistant"]
    return _field(row, "prompt"), [*_field(row, "completion"), *_field(row, "text")]


def _field(row: Row, name: str) -> list[str]:
    return [row.fields[name]] if name in row.fields else []


def _wholes(row: Row) -> list[str]:
    """All that was said in a row, and where that is another text, as it is trained: a completion may begin inside a
    word of its prompt."""
    turns = _turns(row)
    return list(dict.fromkeys([" ".join(turns), *(["".join(turns)] if row.form == "completion" else [])]))


def _turns(row: Row) -> list[str]:
    """What was said in a row, in its order, without the system."""
    if row.form == "messages":
        return [message["content"] for message in row.fields["messages"] if message["role"] != "system"]
    return [text for name in ("prompt", "completion", "text") for text in _field(row, name)]
