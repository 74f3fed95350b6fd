"""Laws of what the child says: pure checks of texts, by the part of the exam or the file of prompts that they answer.

A text is named by its part and its number there, from 1, such as ``sampled 3``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ladder.data.jsonl import shown
from ladder.errors import GateError
from ladder.gates.law import Violation
from ladder.gates.probes import fold, is_unspaced

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
