"""Tone: how far a model's answers have drifted from a reference voice.

A style profile has three facets (``ladder.gates.style``): words, characters, and the shape of sentences. In each, it is
the share of every frequent thing, with all others in one bucket. Two profiles are compared by the Jensen-Shannon
divergence of each facet in bits (0 to 1), and the mean of the three is the drift.

Two samples of one voice diverge too, the more the smaller they are. That noise is measured and taken off: in every
draw a sample of the reference, as long as the answers' sample, is compared with the same rest of the reference. For
answers in the reference's own voice the two divergences agree on average, so the drift is 0 but for the scatter.

``docs/gates.md`` says what was measured with it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from ladder.data.jsonl import read_lines
from ladder.errors import DataError, GateError
from ladder.gates.style import Profile, words

_DRAWS = 20
_MIN_TEXTS = 8
_MIN_TOKENS = 100


def drift(answers: Sequence[str], reference: Sequence[str], seed: int = 0, *, paired: bool = False) -> float:
    """Stylometric drift of ``answers`` from ``reference``, in [0, 1]: the mean of its three facets.

    Args:
        answers: what the model said, one text an entry; empty ones say nothing and are left out.
        reference: utterances in the voice, of about the answers' length.
        seed: of the random samples of both.
        paired: each answer and the utterance at its place answer one prompt, so they are drawn together.

    Raises:
        GateError: fewer than 8 answers or 100 words and marks, or a reference with less than twice that, or one
            utterance that is longer than all others together, or pairs of which one is missing.
    """
    return mean_drift(facet_drifts(answers, reference, seed, paired=paired))


def mean_drift(facets: Mapping[str, float]) -> float:
    """One figure of the facets' drifts, in [0, 1]."""
    return min(1.0, max(0.0, math.fsum(facets.values()) / len(facets)))


def facet_drifts(
    answers: Sequence[str], reference: Sequence[str], seed: int = 0, *, paired: bool = False
) -> dict[str, float]:
    """Each facet's own drift, -1 to 1: below 0 where the answers lie nearer to the reference than its own samples.

    Arguments and errors are those of ``drift``.
    """
    ours, voice = comparable(answers, reference, paired=paired)
    size = min(_size(ours), _size(voice) // 2)
    draw = random.Random(seed)
    excess = [_excess(draw, ours, voice, size, paired) for _ in range(_DRAWS)]
    return {facet: math.fsum(each[facet] for each in excess) / _DRAWS for facet in excess[0]}


def comparable(
    answers: Sequence[str], reference: Sequence[str], *, paired: bool = False
) -> tuple[list[str], list[str]]:
    """Answers and utterances that say something; of pairs, those of which both do.

    Raises:
        GateError: there is too little of them, as in ``drift``.
    """
    if paired:
        said = [pair for pair in _pairs(answers, reference) if all(map(str.strip, pair))]
        ours, voice = [answer for answer, _ in said], [utterance for _, utterance in said]
    else:
        ours, voice = list(filter(str.strip, answers)), list(filter(str.strip, reference))
    _check_enough(ours, "answers", 1)
    _check_enough(voice, "reference", 2)
    _check_split(voice)
    return ours, voice


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
        DataError: as ``read_lines``, or the file holds nothing.
    """
    found = [line.strip() for _, line in read_lines(path)]
    if not found:
        raise DataError("no utterances", where=str(path), remedy="write one utterance a line")
    return found


def _pairs(answers: Sequence[str], reference: Sequence[str]) -> list[tuple[str, str]]:
    if len(answers) != len(reference):
        raise GateError(
            f"found {len(answers)} answers and {len(reference)} utterances, expected one of each for every prompt",
            where="gates.tone.reference",
            remedy="compare answers to the same prompts",
        )
    return list(zip(answers, reference, strict=True))


def _excess(draw: random.Random, ours: list[str], voice: list[str], size: int, paired: bool) -> dict[str, float]:
    """How much farther a sample of ours lies from a part of the voice than another, equal sample of the voice.

    The profile is that of the part: both samples are new to it.
    """
    own, rest = _sample(draw, voice, size)
    said = own if paired else _sample(draw, ours, size)[0]
    profile = Profile(voice[place] for place in rest)
    part = profile.count(voice[place] for place in rest)
    near, far = profile.count(voice[place] for place in own), profile.count(ours[place] for place in said)
    return {facet: divergence(far[facet], part[facet]) - divergence(near[facet], part[facet]) for facet in part}


def _sample(draw: random.Random, texts: list[str], size: int) -> tuple[list[int], list[int]]:
    """Places of whole texts in random order until ``size`` words and marks are reached, and of all the others."""
    order = draw.sample(range(len(texts)), len(texts))
    sizes = accumulate(len(words(texts[place])) for place in order)
    taken = next(count for count, so_far in enumerate(sizes, 1) if so_far >= size)
    return order[:taken], order[taken:]


def _size(texts: list[str]) -> int:
    return sum(len(words(text)) for text in texts)


def _check_enough(texts: list[str], what: str, factor: int) -> None:
    least_texts, least_tokens = factor * _MIN_TEXTS, factor * _MIN_TOKENS
    if len(texts) < least_texts or _size(texts) < least_tokens:
        raise GateError(
            f"found {len(texts)} {what} with {_size(texts)} words and marks, "
            f"a tone is measured on at least {least_texts} with {least_tokens}",
            where=f"gates.tone.{'reference' if what == 'reference' else 'prompts'}",
            remedy="give more or longer prompts and reference lines, or set gates.tone.reference to none",
        )


def _check_split(voice: list[str]) -> None:
    """No utterance may hold half of the reference: samples are of whole utterances, and something must remain."""
    if 2 * max(len(words(text)) for text in voice) > _size(voice):
        raise GateError(
            "one utterance holds more than half of the reference",
            where="gates.tone.reference",
            remedy="put one utterance on a line",
        )
