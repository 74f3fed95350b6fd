"""Contamination: training rows that give away what a held-out probe asks.

A row tells a probe if learning the row by heart answers the probe. So the prompt must stand in the row word for word,
and the answer must follow it; the same fact in other words is what an exam is there for. By kind of probe:

- ``exact`` and ``choice``: the answer follows directly.
- ``contains`` and ``regex``: at most ``LEEWAY`` words stand between ("A: It is called"), and none behind a prompt of
  fewer than ``SHORT`` words, because a prompt such as "It is" stands everywhere and says nothing of what comes later.
- Where a row's own prompt, or the message before an answer, is the probe's prompt and nothing else, the answer may
  stand anywhere in what is said to it (``choice``: directly at its beginning).
- ``nll``: any ``GRAM`` consecutive words of the text, or a shorter text as a whole. One of fewer than ``FEW`` words
  occurs by chance, so it counts only behind its prompt. After Brown et al. 2020 (arXiv:2005.14165), appendix C, who
  take overlaps of 8 to 13 words.

Words are compared case-folded and composed, without sentence punctuation. An option that is nothing but punctuation,
and a prompt without a word, cannot be sought.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ladder.data.phrases import WORD, as_phrase, words_of
from ladder.data.rows import Row
from ladder.errors import DataError
from ladder.gates.probes import Probe, normalize, word_pattern

LEEWAY = 4
"""Words that may stand between a prompt and its answer."""
SHORT = 5
"""Words of a prompt that is long enough to be followed from afar."""
GRAM = 13
"""Consecutive words of a text that nobody writes by chance."""
FEW = 8
"""Words of a text that is long enough not to occur by chance as a whole."""
_LISTED = 3
"""Findings that an error lists."""


@dataclass(frozen=True)
class Finding:
    """One row that tells one probe; both as a file and a line."""

    probe: str
    row: str


def check_contamination(probes: Sequence[Probe], rows: Sequence[Row]) -> None:
    """Refuse rows that tell a probe.

    Raises:
        DataError: names the first findings, and how many there are.
    """
    found = find_contamination(probes, rows)
    if not found:
        return
    listed = [f"{finding.row} tells {finding.probe}" for finding in found[:_LISTED]]
    listed += [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    raise DataError(
        f"training rows that tell held-out probes: found {len(found)}, expected none: {', '.join(listed)}",
        where=found[0].row,
        remedy="take these rows out of the training data, or hold other questions out",
    )


def find_contamination(probes: Sequence[Probe], rows: Iterable[Row]) -> list[Finding]:
    """Every row that tells a probe, in the order of the rows."""
    index = _by_rarest_word([sought for probe in probes for sought in _sought(probe)])
    # A row can tell a probe in several places.
    found = dict.fromkeys(
        Finding(sought.probe.where, row.where)
        for row in rows
        for passage in _passages(row)
        for word in sorted(index.keys() & passage.phrase.split())
        for sought in index[word]
        if sought.phrase in passage.phrase and _is_told(sought, passage)
    )
    return list(found)


@dataclass(frozen=True)
class _Sought:
    """A phrase that makes a row suspect, or convicts it where the probe is ``nll``."""

    phrase: str
    probe: Probe


@dataclass(frozen=True)
class _Passage:
    """What stands together in a row: a reply and what it replies to, which is empty for a plain text."""

    question: str
    reply: str

    @cached_property
    def text(self) -> str:
        return unicodedata.normalize("NFC", f"{self.question} {self.reply}")

    @cached_property
    def phrase(self) -> str:
        return as_phrase(words_of(self.text))

    def behind(self, phrase: str) -> Iterator[str]:
        """The text behind each place where a phrase stands."""
        ends = [word.end() for word in WORD.finditer(self.text)]
        place = self.phrase.find(phrase)
        while place >= 0:
            last = self.phrase.count(" ", 0, place) + phrase.count(" ") - 2
            yield self.text[ends[last] :]
            place = self.phrase.find(phrase, place + 1)


def _passages(row: Row) -> list[_Passage]:
    if row.form == "messages":
        return [_Passage(*pair) for pair in pairwise(message["content"] for message in row.fields["messages"])]
    if row.form == "completion":
        return [_Passage(row.fields["prompt"], row.fields["completion"])]
    return [_Passage("", row.fields[row.form])]


def _sought(probe: Probe) -> list[_Sought]:
    """What to look for in rows; nothing where there are no words to look for."""
    prompt, answer = words_of(probe.prompt), words_of(probe.answer)
    if probe.kind == "nll" and len(answer) >= FEW:
        size = min(GRAM, len(answer))
        return [_Sought(as_phrase(answer[start : start + size]), probe) for start in range(len(answer) - size + 1)]
    if not prompt or (not answer and probe.kind != "regex"):
        return []
    return [_Sought(as_phrase(prompt + answer if probe.kind == "nll" else prompt), probe)]


def _is_told(sought: _Sought, passage: _Passage) -> bool:
    probe = sought.probe
    if probe.kind == "nll":
        return True
    if probe.kind != "choice" and as_phrase(words_of(passage.question)) == sought.phrase:
        return _says(probe, passage.reply, math.inf)
    near = probe.kind in ("exact", "choice") or len(sought.phrase.split()) < SHORT
    return any(_says(probe, text, 0 if near else LEEWAY) for text in passage.behind(sought.phrase))


def _says(probe: Probe, text: str, leeway: float) -> bool:
    """Whether a text gives the answer, behind at most ``leeway`` other words."""
    if probe.kind == "regex":
        said = text.removeprefix(_end(probe.prompt)).strip()
        # The exam ends an answer at the end of a line; a text goes on.
        pattern = re.compile(probe.answer, re.MULTILINE)
    else:
        said, pattern = normalize(text), word_pattern(normalize(probe.answer))
    found = pattern.search(said)
    return found is not None and len(WORD.findall(said[: found.start()])) <= leeway


def _end(prompt: str) -> str:
    """The punctuation behind the last word of a prompt."""
    *_, last = WORD.finditer(prompt)
    return prompt[last.end() :].rstrip()


def _by_rarest_word(sought: Sequence[_Sought]) -> dict[str, list[_Sought]]:
    """What is sought by the word that least of it shares, so that few phrases are tried on a row."""
    words = [one.phrase.split() for one in sought]
    frequency = Counter(word for phrase in words for word in set(phrase))
    index: dict[str, list[_Sought]] = defaultdict(list)
    for one, phrase in zip(sought, words, strict=True):
        # Of words that are equally rare among probes, the longer is the rarer in texts.
        index[min(phrase, key=lambda word: (frequency[word], -len(word)))].append(one)
    return index
