"""Tone: how far a model's answers have drifted from a reference voice.

A style profile is the share of each of the reference's most frequent words and punctuation marks, as they are
written, with all others in one bucket; such words carry a voice more than a topic (J. Burrows, "Delta", 2002). Two
profiles are compared by their Jensen-Shannon divergence in bits (0 to 1).

Two samples of one voice diverge too, the more the smaller they are. That noise is measured and taken off: in every
draw a sample of the reference, as long as the answers' sample, is compared with the same rest of the reference. For
answers in the reference's own voice the two divergences agree on average, so the drift is 0 but for the scatter.

Measured on sentences of nine public authors, 45 splits of one author and 72 pairs of two:

    answers, reference (sentences)      20, 100    60, 400
    same author: mean, largest          0.005, 0.044   0.002, 0.010
    another author: median, above 0.05  0.049, 49%     0.066, 67%

Authors who share an era and an office (presidents' speeches) are the ones that stay below 0.05. So a voice gate needs
some 60 answers, and finds another voice, not another mood.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ladder.errors import DataError, GateError

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_VOCABULARY = 200
"""Words and marks in a profile."""
_FREQUENT = 3
"""Occurrences in the reference below which a word is not told from the rest: rarer ones fit the reference by chance."""
_DRAWS = 20
_MIN_TEXTS = 8
_MIN_TOKENS = 100


def drift(answers: Sequence[str], reference: Sequence[str], seed: int = 0) -> float:
    """Stylometric drift of ``answers`` from ``reference``, in [0, 1].

    Args:
        answers: what the model said, one text an entry; empty ones say nothing and are left out.
        reference: utterances in the voice, of about the answers' length.
        seed: of the random samples of both.

    Raises:
        GateError: fewer than 8 answers or 100 words and marks, or a reference with less than twice that, or one
            utterance that is longer than all others together.
    """
    profile = _frequent(_count(reference))
    ours = _profiles(answers, profile)
    voice = _profiles(reference, profile)
    _check_enough(ours, "answers", 1)
    _check_enough(voice, "reference", 2)
    _check_split(voice)
    size = min(_size(ours), _size(voice) // 2)
    draw = random.Random(seed)
    excess = [_excess(draw, ours, voice, size) for _ in range(_DRAWS)]
    return min(1.0, max(0.0, math.fsum(excess) / _DRAWS))


def divergence(p: Counter[str], q: Counter[str]) -> float:
    """Jensen-Shannon divergence of two counted distributions, in bits (0 to 1)."""
    total_p, total_q = p.total(), q.total()
    terms = []
    for token in p.keys() | q.keys():
        share_p, share_q = p[token] / total_p, q[token] / total_q
        middle = (share_p + share_q) / 2
        terms += [share / 2 * math.log2(share / middle) for share in (share_p, share_q) if share > 0]
    return math.fsum(terms)


def read_utterances(path: Path) -> list[str]:
    """Lines of a reference or prompt file that are not empty.

    Raises:
        DataError: the file cannot be read as UTF-8, or holds nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="one utterance a line, in UTF-8") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError("no utterances", where=str(path), remedy="write one utterance a line")
    return found


def _excess(draw: random.Random, ours: list[Counter[str]], voice: list[Counter[str]], size: int) -> float:
    """How much farther a sample of ours lies from a part of the voice than another, equal sample of the voice."""
    (own, rest), (said, _) = _sample(draw, voice, size), _sample(draw, ours, size)
    return divergence(said, rest) - divergence(own, rest)


def _sample(draw: random.Random, texts: list[Counter[str]], size: int) -> tuple[Counter[str], Counter[str]]:
    """Whole texts in random order until ``size`` tokens are reached, and all the others."""
    taken: Counter[str] = Counter()
    others: Counter[str] = Counter()
    so_far = 0
    for text in draw.sample(texts, len(texts)):
        (taken if so_far < size else others).update(text)
        so_far += text.total()
    return taken, others


def _profiles(texts: Iterable[str], profile: set[str]) -> list[Counter[str]]:
    """Tokens of each text that says something, those outside the profile counted under the empty string."""
    counted = (Counter(token if token in profile else "" for token in _TOKEN.findall(text)) for text in texts)
    return [counts for counts in counted if counts]


def _frequent(counts: Counter[str]) -> set[str]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {token for token, count in ranked[:_VOCABULARY] if count >= _FREQUENT}


def _count(texts: Iterable[str]) -> Counter[str]:
    return Counter(token for text in texts for token in _TOKEN.findall(text))


def _size(texts: list[Counter[str]]) -> int:
    return sum(counts.total() for counts in texts)


def _check_enough(texts: list[Counter[str]], what: str, factor: int) -> None:
    least_texts, least_tokens = factor * _MIN_TEXTS, factor * _MIN_TOKENS
    if len(texts) < least_texts or _size(texts) < least_tokens:
        raise GateError(
            f"found {len(texts)} {what} with {_size(texts)} words and marks, "
            f"a tone is measured on at least {least_texts} with {least_tokens}",
            where=f"gates.tone.{'reference' if what == 'reference' else 'prompts'}",
            remedy="give more or longer prompts and reference lines, or set gates.tone.reference to none",
        )


def _check_split(voice: list[Counter[str]]) -> None:
    """No utterance may hold half of the reference: samples are of whole utterances, and something must remain."""
    if 2 * max(counts.total() for counts in voice) > _size(voice):
        raise GateError(
            "one utterance holds more than half of the reference",
            where="gates.tone.reference",
            remedy="put one utterance on a line",
        )
