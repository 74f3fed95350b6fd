"""Tone: how far a model's answers have drifted from a reference voice, counted in three facets that tell writers apart
more than topics."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate, chain
from pathlib import Path

from ladder.data import read_lines
from ladder.errors import DataError, GateError

TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
"""A word, with what its apostrophes and hyphens join, or a mark."""
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"[^.!?…]*[.!?…]+|[^.!?…]+$")
_CLAUSE = re.compile(r"[^,;:.!?…—–]*([,;:.!?…—–]+)|[^,;:.!?…—–]+$")
_MOST = {"words": 200, "characters": 1000, "shape": 200}
"""Different things in a profile, by facet."""
_FREQUENT = 3
"""Occurrences in the reference below which something is not told from the rest: rarer ones fit it by chance."""


class Profile:
    """What is frequent in a reference; other texts are counted in its terms, with everything else in one bucket.

    Args:
        texts: the reference.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = list(texts)
        self._words = _frequent(chain.from_iterable(map(words, texts)), _MOST["words"])
        self._frequent = {facet: _frequent(counted, _MOST[facet]) for facet, counted in self._facets(texts).items()}

    def count(self, texts: Iterable[str]) -> dict[str, Counter[str]]:
        """How often the texts hold each frequent thing, by facet; the empty string counts the others."""
        return {
            facet: Counter(token if token in self._frequent[facet] else "" for token in counted)
            for facet, counted in self._facets(list(texts)).items()
        }

    def _facets(self, texts: list[str]) -> dict[str, Iterator[str]]:
        return {
            "words": chain.from_iterable(map(words, texts)),
            "characters": chain.from_iterable(characters(text, self._words) for text in texts),
            "shape": chain.from_iterable(map(shape, texts)),
        }


def words(text: str) -> list[str]:
    """Words and marks as they are written."""
    return TOKEN.findall(text)


def characters(text: str, known: Set[str]) -> list[str]:
    """Trigrams of a text whose words are ``known`` or an asterisk; white space is one space, also at both ends."""
    masked = TOKEN.sub(lambda token: token.group() if token.group() in known else "*", text)
    spaced = f" {' '.join(masked.split())} "
    return [spaced[place : place + 3] for place in range(len(spaced) - 2)]


def shape(text: str) -> list[str]:
    """The length class of every clause with the marks that end it, and that of every sentence."""
    text = text.strip()
    clauses = [f"{_length(clause.group())}{clause.group(1) or ''}" for clause in _CLAUSE.finditer(text)]
    return clauses + [f"sentence {_length(sentence)}" for sentence in _SENTENCE.findall(text)]


def _length(text: str) -> int:
    """Class of a number of words: 0, 1, 2-3, 4-7, 8-15, ... are 0, 1, 2, 3, 4."""
    return len(_WORD.findall(text)).bit_length()


def _frequent(tokens: Iterable[str], most: int) -> set[str]:
    ranked = sorted(Counter(tokens).items(), key=lambda item: (-item[1], item[0]))
    return {token for token, count in ranked[:most] if count >= _FREQUENT}


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
