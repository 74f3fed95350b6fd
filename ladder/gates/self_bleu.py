"""Self-BLEU: how much of what a model says it says again elsewhere (Zhu et al., "Texygen", 2018)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, fsum, log

ORDER = 4
"""The longest n-grams, in words."""
NO_MATCH = 0.1
"""What an n-gram precision without a match counts as matches (smoothing 1 of Chen and Cherry, 2014)."""

Gram = tuple[str, ...]


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each text with all others as its references, 0 to 1; None for fewer than two texts.

    Words are what white space separates. The precisions of 1- to 4-grams weigh alike; a text of fewer words has fewer
    of them, so that a text that equals another scores 1 however short it is.
    """
    if len(texts) < 2:
        return None
    said = [text.split() for text in texts]
    grams = [_grams(words) for words in said]
    most = _two_largest(grams)
    lengths = [len(words) for words in said]
    scores = [
        _bleu(grams[place], most, lengths[place], lengths[:place] + lengths[place + 1 :]) for place in range(len(said))
    ]
    return fsum(scores) / len(scores)


def _grams(words: Sequence[str]) -> Counter[Gram]:
    """All n-grams up to ``ORDER``."""
    return Counter(tuple(words[start : start + n]) for n in range(1, ORDER + 1) for start in range(len(words) - n + 1))


def _two_largest(counts: Sequence[Counter[Gram]]) -> dict[Gram, tuple[int, int]]:
    """How often each n-gram stands in the text that has most of it, and in the next: the most of all others."""
    found: dict[Gram, tuple[int, int]] = {}
    for own in counts:
        for gram, count in own.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (count, first) if count > first else (first, max(second, count))
    return found


def _bleu(own: Counter[Gram], most: Mapping[Gram, tuple[int, int]], length: int, others: Sequence[int]) -> float:
    """BLEU of one text against others of these lengths; of one without words 1 where another has none either."""
    if not length:
        return float(0 in others)
    matches = [0] * ORDER
    for gram, count in own.items():
        first, second = most[gram]
        matches[len(gram) - 1] += min(count, second if count == first else first)
    logs = [log(max(matches[n - 1], NO_MATCH) / (length - n + 1)) for n in range(1, min(ORDER, length) + 1)]
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return min(1.0, exp(1 - nearest / length)) * exp(fsum(logs) / len(logs))
