"""What decides whether a lesson is learned: how often each new row is read, and whether the tokenizer knows its words.

A word that a tokenizer never saw comes in pieces, and a small model from scratch must learn how they follow each other
before it can learn what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from ladder.data import Row
from ladder.models.scratch import BEGIN, PAD
from ladder.planning.start import Start
from ladder.setup import texts_of

LOOKED_AT = 1000
"""Texts whose words are counted."""
STRANGE = 2.2
"""Times the tokens a word of the ancestors' rows from which on a person is told. A lesson of 1.8 times was learned in
12 readings of each row (``manifests/luna/001-adjectives.yaml``), one of 3 times in 32 readings not at all."""
NEEDED, ENOUGH = 30, 35
"""Readings of a row, for each time that its words have as many tokens as the ancestors', below which such a lesson will
probably not be learned, and with which it may: words in three times the pieces took 82 readings to two thirds of their
probes."""


@dataclass(frozen=True)
class Lesson:
    """The new rows of a run, as its student reads them.

    Args:
        readings: how often each of them is read over the run; ``steps`` and ``rows`` of it.
        tokens_per_word: of the new rows, and of what the ancestors left; None where there is nothing to count.
        small: a family from scratch, with a tokenizer of its own, learns with all of its weights.
    """

    rows: int
    steps: int
    readings: float
    tokens_per_word: float | None
    ancestors_tokens_per_word: float | None
    small: bool

    @property
    def pieces(self) -> float:
        """How many times the ancestors' tokens a word has."""
        if not self.tokens_per_word or not self.ancestors_tokens_per_word:
            return 1.0
        return self.tokens_per_word / self.ancestors_tokens_per_word

    @property
    def asked(self) -> str:
        """What docs/recipe.md asks for."""
        return "20 to 50 with all weights of a small model" if self.small else "about 5 where a pretrained model learns"

    @property
    def steps_needed(self) -> int | None:
        """Steps with which the lesson will probably be learned, where these will not do; else None."""
        if not self.small or self.pieces < STRANGE or self.readings >= NEEDED * self.pieces:
            return None
        steps = ENOUGH * self.pieces * self.steps / max(self.readings, 1e-9)
        return -(-int(steps) // 100) * 100

    def warning(self) -> list[str]:
        """A sentence for a person, where the lesson will probably not be learned."""
        needed = self.steps_needed
        if needed is None:
            return []
        return [
            f"training_params.steps: the new rows have {self.pieces:.1f} times the tokens a word of the ancestors' "
            f"rows, so their words are new to the family's tokenizer, and {self.readings:.0f} readings of a row will "
            f"probably not teach them; about {needed:,} steps may, or a genesis whose tokenizer knows these words "
            "(data.tokenizer_text)"
        ]


def lesson_of(start: Start) -> Lesson:
    """Of what a student will read."""
    manifest, tokenizer = start.request.manifest, start.tokenizer
    steps, batches = manifest.training_params.steps, start.batches
    rows = len(batches.pools.get("new", ()))
    read = batches.rows_by_source().get("new", 0) * steps
    return Lesson(
        rows,
        steps,
        read / max(1, rows),
        tokens_per_word(start.dataset.new, tokenizer),
        tokens_per_word(start.dataset.replay, tokenizer),
        small=is_from_scratch(tokenizer) and manifest.student.adapter is None,
    )


def is_from_scratch(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a tokenizer is that of a family from scratch, which is a small one."""
    return tokenizer.bos_token == BEGIN and tokenizer.pad_token == PAD


def tokens_per_word(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> float | None:
    """Mean tokens of what stands between spaces in the first texts of some rows; None where nothing does."""
    texts = texts_of(rows[:LOOKED_AT])[:LOOKED_AT]
    words = sum(len(text.split()) for text in texts)
    if not words:
        return None
    return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]) / words
