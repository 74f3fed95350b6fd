"""Self-BLEU by hand, against the plain definition, and at its edges."""

from __future__ import annotations

import random
from collections import Counter
from math import exp, log

import pytest

from ladder.exam.calibration import self_bleu


def test_by_hand() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples stand in the other text.
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    short, long = exp(1 - 4 / 2), (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** (1 / 4)
    assert self_bleu(["a b", "a b c d"]) == pytest.approx((short + long) / 2)
    # The second is as near to the third as to the first: the shorter counts, and it is not too brief.
    long, short = (2 / 3 * 1 / 2 * 0.1) ** (1 / 3), exp(1 - 2)
    assert self_bleu(["a b c", "a b", "a"]) == pytest.approx((long + 1 + short) / 3)


def plain(texts: list[str]) -> float:
    """The definition word for word: matches clipped by the most of any one reference."""
    scores = []
    for place, text in enumerate(texts):
        own, others = text.split(), [other.split() for other in texts[:place] + texts[place + 1 :]]
        logs = []
        for n in range(1, min(4, len(own)) + 1):
            counts, *references = (
                Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (own, *others)
            )
            matched = sum(min(count, max(known[gram] for known in references)) for gram, count in counts.items())
            logs.append(log((matched or 0.1) / sum(counts.values())))
        nearest = min((abs(len(other) - len(own)), len(other)) for other in others)[1]
        scores.append(min(1.0, exp(1 - nearest / len(own))) * exp(sum(logs) / len(logs)))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_plain_definition(seed: int) -> None:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices("abc", k=draw.randint(1, 9))) for _ in range(draw.randint(2, 8))]
    assert self_bleu(texts) == pytest.approx(plain(texts))


@pytest.mark.parametrize("text", ["", "Aye.", "so it was", "so it was and so it will be"])
def test_a_text_that_equals_another_scores_one(text: str) -> None:
    assert self_bleu([text, text]) == self_bleu([text] * 5) == 1.0


def test_texts_with_nothing_in_common_score_little() -> None:
    found = self_bleu(["a b c d e", "f g h i j", ""])
    assert found is not None and found < 0.03


@pytest.mark.parametrize("texts", [[], ["a b c"]])
def test_one_text_has_no_others(texts: list[str]) -> None:
    assert self_bleu(texts) is None
