"""How often rows are read, and whether the family's tokenizer knows their words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ladder.data import Row
from ladder.planning.lesson import Lesson, tokens_per_word

# The case that was seen: 27 tokens a row instead of 9, and after 32 readings none of 40 probes was answered.
STRANGE = Lesson(600, 400, 32.0, 4.5, 1.5, small=True)


def test_strange_words_ask_for_more_steps() -> None:
    (told,) = STRANGE.warning()
    assert STRANGE.pieces == 3.0 and STRANGE.steps_needed == 1400
    assert "3.0 times" in told and "32 readings" in told and "1,400 steps" in told and "data.tokenizer_text" in told
    assert replace(STRANGE, steps=1000, readings=80.0).steps_needed == 1400
    enough = replace(STRANGE, steps=1400, readings=112.0)
    assert enough.steps_needed is None and enough.warning() == []


@pytest.mark.parametrize(
    "lesson",
    [
        replace(STRANGE, readings=11.7, tokens_per_word=2.5, ancestors_tokens_per_word=1.4),  # manifests/luna/001
        replace(STRANGE, small=False),
        replace(STRANGE, ancestors_tokens_per_word=None),
        replace(STRANGE, tokens_per_word=None),
    ],
)
def test_others_are_told_nothing(lesson: Lesson) -> None:
    assert lesson.warning() == []


def test_words_are_what_stands_between_spaces(tokenizer: Any) -> None:
    def counted(*texts: str) -> float | None:
        return tokens_per_word([Row({"text": text}, "a.jsonl:1") for text in texts], tokenizer)

    known, strange = counted("the moon is the moon"), counted("zqxj vwkq")
    assert known is not None and strange is not None and strange > 2 * known
    assert counted(" ") is None and counted() is None
