"""Contamination: training rows that give away what a held-out probe asks."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ladder.data import Row, message_text
from ladder.errors import DataError
from ladder.exam.exam import EDGES, READ, UNSPACED, Probe, fold, normalize, word_pattern

WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+|[^\w\s{re.escape(EDGES)}]")
"""One character of a script without spaces, a word or number, or a sign that changes a meaning."""


def words_of(text: str) -> list[str]:
    """The words of a text, case-folded and composed, without sentence punctuation."""
    # Folding them all at once is faster than one by one. They are found first, because folding can split a letter.
    return fold(" ".join(WORD.findall(unicodedata.normalize("NFC", text)))).split()


def as_phrase(words: Sequence[str]) -> str:
    """Words between spaces, so that a phrase is found at whole words only."""
    return f" {' '.join(words)} "


LEEWAY = 4
"""Words that may stand between a prompt and its answer."""
SHORT = 5
"""Words of a prompt that is long enough to be followed from afar."""
GRAM = 13
"""Consecutive words of a text that nobody writes by chance."""
FEW = 8
"""Words of a text that is long enough not to occur by chance as a whole."""
REACH = 64
"""Words behind a prompt in which a pattern is sought. An answer of the exam has 32 tokens by default."""
_BEYOND = 3
"""Words behind an answer that are read to see where it ends: 4 is not told by 4.5, nor Guinea by Guinea-Bissau."""
_SEEN = 500_000
"""Words whose beginnings are remembered."""
_JOINED = re.compile(rf"[^\W_{UNSPACED}]")
"""A character that is one word with another such one beside it."""
_CONTROL = re.compile(r"<\|([^<>|\s]{1,40})\|>|<(?:start|end)_of_turn>|\[(/?INST)\]|</?s>")
"""What chat templates write between turns."""
_ROLE = re.compile(r"\s*(system|user|assistant|model|tool)[ \t]*(?=\n|$)")
_ANSWERS, _QUESTIONS = ("assistant", "model", "/INST"), ("system", "user", "tool", "INST")
_REMOVED = 20
"""Rows that a remedy takes out by a command."""
_LISTED = 3
"""Findings that an error lists."""


@dataclass(frozen=True)
class Finding:
    """One row that tells one probe; both as a file and a line."""

    probe: str
    row: str


def check_contamination(probes: Sequence[Probe], rows: Sequence[Row], what: str = "training rows") -> None:
    """Refuse rows that tell a probe.

    Args:
        what: the rows are, for messages.

    Raises:
        DataError: names the first findings, and how many there are.
    """
    found = find_contamination(probes, rows)
    if not found:
        return
    listed = [f"{finding.row} tells {finding.probe}" for finding in found[:_LISTED]]
    listed += [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
    raise DataError(
        f"{what} that tell held-out probes: found {len(found)}, expected none: {', '.join(listed)}",
        where=found[0].row,
        remedy=f"{_removal(found) or f'take these out of the {what}'}, or hold other questions out",
    )


def _removal(found: Sequence[Finding]) -> str:
    """The command that takes the rows out; empty where they are many, or not all lines of one JSONL file."""
    places = [re.fullmatch(r"(.+\.jsonl):(\d+)", finding.row, re.DOTALL) for finding in found]
    files = {place[1] for place in places if place}
    if None in places or len(files) != 1 or len(found) > _REMOVED:
        return ""
    lines = sorted({int(place[2]) for place in places if place})
    return f"`sed -i '{';'.join(f'{line}d' for line in lines)}' {shlex.quote(files.pop())}` takes these out"


def find_contamination(probes: Sequence[Probe], rows: Iterable[Row]) -> list[Finding]:
    """Every row that tells a probe, in the order of the rows."""
    index = _Index([sought for probe in probes for sought in _sought(probe)])
    # A row can tell a probe in several places.
    found = dict.fromkeys(
        Finding(sought.probe.where, row.where)
        for row in rows
        for passage in _passages(row)
        for sought, firsts in index.suspects(passage.words)
        if _has_context(sought, passage) and _is_told(sought, passage, firsts)
    )
    return list(found)


@dataclass(frozen=True)
class _Sought:
    """A phrase that makes a row suspect, or convicts it where it is all that is sought.

    Args:
        words: of the phrase, one or more.
        probe: whose it is.
        answer: the words of an ``nll`` text that must follow; empty where the phrase is all.
        own: how much of the last word is the probe's prompt, where the answer goes on in it; empty for all of it.
        is_open: whether the last word may go on in the row.
        context: what users said before it, of a short question that means something else after other words.
    """

    words: tuple[str, ...]
    probe: Probe
    answer: tuple[str, ...] = ()
    own: str = ""
    is_open: bool = False
    context: tuple[tuple[str, ...], ...] = ()

    def stands(self, words: Sequence[str], first: int) -> bool:
        """Whether the phrase begins with a word of a passage."""
        if first < 0:
            return False
        there, last = words[first : first + len(self.words)], self.words[-1]
        if len(there) < len(self.words) or not (there[-1] == last or (self.is_open and there[-1].startswith(last))):
            return False
        return tuple(there[:-1]) == self.words[:-1]


class _Part(NamedTuple):
    """One message, or a row's prompt or completion: its characters in the text of the passage."""

    begin: int
    end: int
    is_answer: bool


class _Place(NamedTuple):
    """Where a phrase stands: its characters in the text, and whether it ends inside a word."""

    begin: int
    end: int
    is_cut: bool


class _Passage:
    """What stands together in a row.

    Args:
        turns: each with whether it is an answer, in their order.
        between: what stands between them.
        words: all its words, in their order.
    """

    def __init__(self, turns: Sequence[tuple[str, bool]], between: str, words: list[str]) -> None:
        self._turns, self._between, self.words = turns, between, words

    @cached_property
    def text(self) -> str:
        return unicodedata.normalize("NFC", self._between.join(text for text, _ in self._turns))

    @cached_property
    def parts(self) -> list[_Part]:
        parts, begin = [], 0
        for text, is_answer in self._turns:
            end = begin + len(unicodedata.normalize("NFC", text))
            parts.append(_Part(begin, end, is_answer))
            begin = end + len(self._between)
        return parts

    @cached_property
    def begins(self) -> list[int]:
        """Where each word begins."""
        return [word.start() for word in WORD.finditer(self.text)]

    @cached_property
    def ends(self) -> list[int]:
        return [word.end() for word in WORD.finditer(self.text)]

    def place(self, sought: _Sought, first: int) -> _Place:
        """Where a phrase stands that begins with a word."""
        last, own = first + len(sought.words) - 1, sought.own or sought.words[-1]
        begin, end = self.begins[last], self.ends[last]
        if is_cut := self.words[last] != own:
            end = begin + _length(self.text[begin:end], own)
        return _Place(self.begins[first], end, is_cut)

    def part(self, place: int) -> int:
        """Which part the character before a place belongs to."""
        return bisect_left(self.parts, place, hi=len(self.parts) - 1, key=lambda part: part.end)

    def behind(self, place: int, limit: int, words: int) -> str:
        """So many words behind a place, and what stands between them."""
        beyond = bisect_left(self.begins, place) + words
        return (
            self.text[place : min(limit, self.begins[beyond])] if beyond < len(self.begins) else self.text[place:limit]
        )

    def answers(self, part: int) -> list[_Part]:
        """The answers behind a part."""
        return [later for later in self.parts[part + 1 :] if later.is_answer]

    def has_words(self, begin: int, end: int) -> bool:
        return WORD.search(self.text, begin, end) is not None


def _length(word: str, folded: str) -> int:
    """How many characters of a word are what another one begins with when it is folded."""
    likely = len(folded)
    return next((size for size in range(likely, 0, -1) if words_of(word[:size]) == [folded]), min(likely, len(word)))


def _passages(row: Row) -> Iterator[_Passage]:
    if row.form == "messages":
        turns = [(message_text(message), message["role"] == "assistant") for message in row.fields["messages"]]
        yield _Passage(turns, "\n", [word for text, _ in turns for word in words_of(text)])
        return
    if rendered := _rendered("".join(row.fields.values())):
        yield _Passage(rendered, "\n", [word for text, _ in rendered for word in words_of(text)])
    if row.form != "completion":
        yield _Passage([(row.fields[row.form], False)], "", words_of(row.fields[row.form]))
        return
    prompt, completion = row.fields["prompt"], row.fields["completion"]
    asked, said, turns = words_of(prompt), words_of(completion), [(prompt, False), (completion, True)]
    if unicodedata.combining(completion[0]):
        yield _Passage(turns, "", words_of(prompt + completion))
    elif _JOINED.match(prompt[-1]) and _JOINED.match(completion[0]):
        yield _Passage(turns, "", [*asked[:-1], asked[-1] + said[0], *said[1:]])
        # The tokens of both halves are apart, so that the second may begin a word, too.
        yield _Passage(turns, " ", asked + said)
    else:
        yield _Passage(turns, "", asked + said)


def _rendered(text: str) -> list[tuple[str, bool]]:
    """The turns of a text that a chat template rendered, each with whether it is an answer; none of another text."""
    if ("<" not in text and "[" not in text) or not _CONTROL.search(text):
        return []
    turns, begin, is_answer = [], 0, False
    for control in (*_CONTROL.finditer(text), None):
        said = text[begin : control.start() if control else len(text)]
        if role := _ROLE.match(said):
            said, is_answer = said[role.end() :], role[1] in _ANSWERS
        if said.strip():
            turns.append((said, is_answer))
        if control:
            begin, name = control.end(), control[1] or control[2]
            is_answer = name in _ANSWERS or (is_answer and name not in _QUESTIONS)
    return turns


def _sought(probe: Probe) -> list[_Sought]:
    """What to look for in rows; nothing where there are no words to look for."""
    prompt, answer = words_of(probe.prompt), words_of(probe.answer)
    is_joined = prompt and answer and _JOINED.match(probe.prompt[-1]) and _JOINED.match(probe.answer[0])
    if probe.kind == "nll" and len(answer) >= FEW:
        texts = [answer, [prompt[-1] + answer[0], *answer[1:]]] if is_joined else [answer]
        is_open = _JOINED.match(probe.answer[-1]) is not None
        grams = dict.fromkeys(gram for text in texts for gram in _grams(text))
        return [_Sought(gram, probe, is_open=is_open and gram[-1] == answer[-1]) for gram in grams]
    if not prompt or (not answer and probe.kind != "regex"):
        return []
    is_open = probe.kind == "regex" and _JOINED.match(probe.prompt[-1]) is not None
    follows = tuple(answer) if probe.kind == "nll" else ()
    context = _context(probe) if len(prompt) < SHORT else ()
    found = [_Sought(tuple(prompt), probe, follows, is_open=is_open, context=context)]
    if is_joined and not is_open:
        found.append(_Sought((*prompt[:-1], prompt[-1] + answer[0]), probe, follows, own=prompt[-1], context=context))
    return found


def _context(probe: Probe) -> tuple[tuple[str, ...], ...]:
    """What the user said in a conversation before the turn that is asked: "And its capital?" tells of Peru only where
    Peru was spoken of. A system's words are no part of a question."""
    earlier = probe.question().messages[:-1] if probe.conversation else []
    said = [tuple(words_of(message["content"])) for message in earlier if message["role"] == "user"]
    return tuple(filter(None, said))


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    size = min(GRAM, len(words))
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def _has_context(sought: _Sought, passage: _Passage) -> bool:
    there = as_phrase(passage.words) if sought.context else ""
    return all(as_phrase(words) in there for words in sought.context)


def _is_told(sought: _Sought, passage: _Passage, firsts: Sequence[int]) -> bool:
    """Whether a passage tells a probe whose phrase begins with some of its words."""
    probe = sought.probe
    if probe.kind == "nll" and not sought.answer:
        return True
    leeway = LEEWAY if probe.kind in ("contains", "regex") and len(sought.words) >= SHORT else 0
    read = REACH if probe.kind == "regex" else len(words_of(probe.answer)) + _BEYOND
    is_followed = is_asked = False
    for place in (passage.place(sought, first) for first in firsts):
        at = passage.part(place.end)
        ends = not place.is_cut and not passage.has_words(place.end, passage.parts[at].end)
        near = 0 if place.is_cut else leeway
        limit = passage.parts[min(at + 1, len(passage.parts) - 1)].end
        if _says(sought, passage.behind(place.end, limit, near + read), near):
            return True
        if not ends or is_asked:
            continue
        # What follows the first of such places follows the others, too.
        asks = not passage.has_words(passage.parts[passage.part(place.begin + 1)].begin, place.begin)
        if asks and probe.kind not in READ:
            is_followed = is_asked = True
            said = [passage.text[part.begin : part.end] for part in passage.answers(at)]
            if any(_says(sought, text, math.inf) for text in said):
                return True
        elif not is_followed:
            is_followed = True
            said = [passage.behind(part.begin, part.end, leeway + read) for part in passage.answers(at)]
            if any(_says(sought, text, leeway) for text in said):
                return True
    return False


def _says(sought: _Sought, text: str, leeway: float) -> bool:
    """Whether a text gives the answer, behind at most ``leeway`` other words."""
    probe = sought.probe
    if sought.answer:
        return tuple(words_of(text)[: len(sought.answer)]) == sought.answer
    if probe.kind == "regex":
        said = text.removeprefix(_end(probe.prompt))
        # The exam ends an answer at the end of a line; a text goes on.
        pattern = re.compile(probe.answer, re.MULTILINE)
    else:
        said, pattern = normalize(text), word_pattern(normalize(probe.answer))
    found = pattern.search(said) or pattern.search(said := said.strip())
    return found is not None and (leeway == math.inf or len(WORD.findall(said[: found.start()])) <= leeway)


def _end(prompt: str) -> str:
    """The punctuation behind the last word of a prompt."""
    *_, last = WORD.finditer(prompt)
    return prompt[last.end() :].rstrip()


class _Entry(NamedTuple):
    """What is sought, by which of its words, and another one that must be there, too."""

    sought: _Sought
    place: int
    other: str


class _Index:
    """What is sought by the word that least of it shares, so that few phrases are tried on a row."""

    def __init__(self, sought: Sequence[_Sought]) -> None:
        frequency = Counter(word for one in sought for word in set(one.words))
        self.whole: dict[str, list[_Entry]] = defaultdict(list)
        self.open: dict[str, list[_Entry]] = defaultdict(list)
        for one in sought:
            last = len(one.words) - 1
            # Of words that are equally rare among probes, the longer is the rarer in texts.
            place, *others = sorted(range(last + 1), key=lambda at: (frequency[one.words[at]], -len(one.words[at])))
            whole = [at for at in (*others, place) if at < last or not one.is_open]
            entry = _Entry(one, place, one.words[whole[0]] if whole else "")
            (self.open if one.is_open and place == last else self.whole)[one.words[place]].append(entry)
        self._sizes = sorted({len(word) for word in self.open})
        self._seen: set[str] = set()
        self._begun: dict[str, list[str]] = {}

    def suspects(self, words: Sequence[str]) -> Iterator[tuple[_Sought, list[int]]]:
        """Whose phrase stands among some words, and where it begins."""
        there = {"", *words}
        whole, begun = self.whole.keys() & there, self._beginnings(there)
        if not whole and not begun:
            return
        places: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for place, word in enumerate(words):
            if word in whole:
                places[word, False].append(place)
            if word in begun:
                for open_ in begun[word]:
                    places[open_, True].append(place)
        for (word, is_open), found in sorted(places.items()):
            for one, at, other in (self.open if is_open else self.whole)[word]:
                if other in there and (firsts := [place - at for place in found if one.stands(words, place - at)]):
                    yield one, firsts

    def _beginnings(self, words: set[str]) -> dict[str, list[str]]:
        """The open words that some words begin with, by word."""
        if not self.open:
            return {}
        if len(self._seen) > _SEEN:
            self._seen, self._begun = set(), {}
        for word in words - self._seen:
            if begun := [word[:size] for size in self._sizes if size <= len(word) and word[:size] in self.open]:
                self._begun[word] = begun
        self._seen |= words
        return {word: self._begun[word] for word in self._begun.keys() & words}
