"""Laws of what the child says: pure checks of texts, of figures about all of them, and of planted canaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ladder.data import shown
from ladder.errors import DataError, GateError
from ladder.exam import Prompt, fold, is_unspaced
from ladder.laws.law import TOLERANCE, Findings, Violation

Texts = Mapping[str, Sequence[str]]
_SHOWN = 80
"""Characters of a forbidden text that are quoted."""


def named(texts: Texts) -> list[tuple[str, str]]:
    """Every text with its name."""
    return [(f"{part} {number}", text) for part, said in texts.items() for number, text in enumerate(said, 1)]


def forbidden_text(texts: Texts, patterns: Sequence[str]) -> list[Violation]:
    """Every text in which a regular expression is found, at most once for each pattern.

    Patterns are searched as written: case counts unless the pattern begins with ``(?i)``.

    Raises:
        GateError: a pattern is no regular expression.
    """
    compiled = [_compile(pattern, "laws.forbidden_text") for pattern in patterns]
    return [
        Violation("forbidden_text", f"{match.group()[:_SHOWN]!r} matches {pattern.pattern!r}", where)
        for where, text in named(texts)
        for pattern in compiled
        if (match := pattern.search(text))
    ]


def required_text(texts: Texts, pattern: str) -> list[Violation]:
    """Every text in which the regular expression is not found.

    Raises:
        GateError: the pattern is no regular expression.
    """
    required = _compile(pattern, "laws.required_text")
    return [
        Violation("required_text", f"{shown(text)} does not match {pattern!r}", where)
        for where, text in named(texts)
        if not required.search(text)
    ]


def refusals(before: Texts | None, now: Texts, pattern: str) -> list[Violation]:
    """Answers that do not refuse (match the regular expression) although the parent's did; without a parent, although
    they must.

    Args:
        before: the parent's answers to the same prompts; None for a genesis.

    Raises:
        GateError: the pattern is no regular expression.
    """
    refusal, old = _compile(pattern, "laws.refusals"), dict(named(before or {}))
    lost = "is no refusal" if before is None else "is no refusal, the parent's answer was one"
    return [
        Violation("refusals", f"{shown(text)} {lost}: it does not match {pattern!r}", where)
        for where, text in named(now)
        if not refusal.search(text) and (before is None or refusal.search(old[where]))
    ]


def taboo(texts: Texts, words: Sequence[str]) -> list[Violation]:
    """Every text that holds one of the words, whatever their case; once for each word."""
    patterns = {word: _word(fold(word)) for word in words}
    return [
        Violation("taboo", f"holds {word!r}", where)
        for where, text in named(texts)
        for word, pattern in patterns.items()
        if pattern.search(fold(text))
    ]


def _word(word: str) -> re.Pattern[str]:
    """The word with no letter or digit joined to it, where its script separates words."""
    before = "" if is_unspaced(word[0]) else r"(?<!\w)"
    after = "" if is_unspaced(word[-1]) else r"(?!\w)"
    return re.compile(before + re.escape(word) + after)


def _compile(pattern: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise GateError(
            f"{pattern!r} is no regular expression: {error}",
            where=where,
            remedy="escape the characters that are meant literally",
        ) from error


def at_most(law: str, value: float | None, limit: float, what: str) -> Findings:
    """Hold a figure against its limit. One that could not be measured (None) breaks the law.

    Args:
        what: the figure in words.
    """
    if value is None:
        return Findings(0, (Violation(law, f"{what} could not be measured", f"laws.{law}"),))
    found = f"{what} is {value:.4f}, at most {limit:g} allowed"
    broken = (Violation(law, found, f"laws.{law}"),) if value > limit + TOLERANCE else ()
    return Findings(1, broken, remark=found)


def rise(before: float | None, after: float | None) -> float | None:
    """By how much a figure rose; None where one of the two could not be measured."""
    return None if before is None or after is None else after - before


_SHORTEST = 8
"""Characters; shorter texts come out by chance."""


class Halves(NamedTuple):
    """A canary as it is asked for: the beginning that is given, and the end that must not follow."""

    first: str
    rest: str

    @classmethod
    def of(cls, canary: str, most: int) -> Halves:
        """Cut a canary before the white space nearest to its middle, or in its middle where none is near.

        Args:
            most: tokens of an answer. A rest of more bytes is cut later, because a token holds at least one, so that
                every answer has room for it.
        """
        middle, quarter = len(canary) // 2, len(canary) // 4
        near = [place for place in range(middle - quarter, middle + quarter + 1) if canary[place].isspace()]
        cut = min(near, key=lambda place: abs(place - middle), default=middle)
        while len(canary[cut:].encode()) > most:
            cut += 1
        return cls(canary[:cut], canary[cut:])

    def prompt(self) -> Prompt:
        return Prompt(self.first)


def canaries_said(texts: Texts, canaries: Sequence[str]) -> list[Violation]:
    """Every text that holds a canary, whatever its case and white space."""
    hidden = [fold(canary) for canary in canaries]
    return [
        Violation("canaries", f"canary {number} came out", where)
        for where, text in named(texts)
        for number, canary in enumerate(hidden, 1)
        if canary in fold(text)
    ]


def canaries_finished(answers: Texts, canaries: Sequence[str], most: int) -> list[Violation]:
    """Every answer to a canary's first half that goes on with the rest, whatever its case and white space.

    Args:
        answers: one answer a canary, in their order.
        most: as ``Halves.of``.
    """
    rests = [fold(Halves.of(canary, most).rest) for canary in canaries]
    return [
        Violation("canaries", "its first half is finished", where)
        for (where, text), rest in zip(named(answers), rests, strict=True)
        if fold(text).startswith(rest)
    ]


def check_canaries(
    canaries: Sequence[str], rows: Iterable[str] | None, stops: Sequence[str], most: int, where: str
) -> None:
    """Refuse canaries that test nothing.

    Args:
        rows: the texts of all rows that the child trains on; None where they are not all known yet.
        stops: strings that end an answer.
        most: as ``Halves.of``.
        where: the canaries' file.

    Raises:
        DataError: one is short, is in no row, or could not be finished in an answer. Names its number.
    """
    said = None if rows is None else [fold(text) for text in rows]
    for number, canary in enumerate(canaries, 1):
        if problem := _problem(canary, said, stops, most):
            raise DataError(f"canary {number} {problem[0]}", where=where, remedy=problem[1])


def _problem(canary: str, rows: Sequence[str] | None, stops: Sequence[str], most: int) -> tuple[str, str] | None:
    """What is wrong with a canary and what to do about it; None where nothing is."""
    if len(canary) < _SHORTEST:
        return f"has {len(canary)} characters, expected at least {_SHORTEST}", "short texts come out by chance"
    if rows is not None and not any(fold(canary) in text for text in rows):
        return "is in no training row, so the law would test nothing", "plant it in data.train, or take it out"
    if held := [stop for stop in stops if stop in Halves.of(canary, most).rest]:
        return f"holds the stop {held[0]!r}, at which every answer ends", "change it or gates.decoding.stop"
    return None
