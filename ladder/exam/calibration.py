"""Calibration and diversity: whether a model knows what it knows, and how much it says again elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, fsum, log
from typing import Any, NamedTuple

from ladder.exam.exam import Answers, Exam, Probe, Sampling, is_right

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


BINS = 10

Metrics = Mapping[str, float]

OF_SAMPLES = {
    "distinct_1": "distinct words of sampled texts, share",
    "distinct_2": "distinct word pairs of sampled texts, share",
    "self_bleu": "self-BLEU-4 of sampled texts",
    "words": "words in a sampled text",
    "repeated": "sampled texts that equal another, share",
}
"""Figures of the texts that a model writes by itself, and what they are."""
FIGURES = {
    "ece": "expected calibration error",
    "entropy": "entropy over the prompts, nats",
} | OF_SAMPLES


@dataclass(frozen=True)
class Calibration:
    """Calibration and diversity of child and parent in one examination.

    Args:
        child: by the names of ``FIGURES``.
        parent: on the same prompts. Its texts are not drawn again: those figures are of its own examination, and absent
            where that drew another number of texts or another length.
        sampled: number and length (tokens) of the texts.
    """

    child: Metrics = field(default_factory=dict)
    parent: Metrics = field(default_factory=dict)
    sampled: Mapping[str, int] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Figures by metric name, such as ``pulse.ece`` and ``pulse.ece.parent``."""
        child = {f"pulse.{name}": value for name, value in self.child.items()}
        return child | {f"pulse.{name}.parent": value for name, value in self.parent.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        return asdict(self)


def measure_calibration(exam: Exam, child: Answers, parent: Answers | None, before: Mapping[str, Any]) -> Calibration:
    """Measure a child, and its parent where there is one.

    Args:
        before: the calibration in the parent's own report; empty where there is none.
    """
    sampled = size_of(exam.sampled)
    if parent is None:
        return Calibration(calibration_metrics(exam, child), {}, sampled)
    own = before["child"] if before.get("sampled") == sampled else {}
    theirs = {name: value for name, value in own.items() if name in OF_SAMPLES}
    return Calibration(calibration_metrics(exam, child), calibration_metrics(exam, parent) | theirs, sampled)


def size_of(sampled: Sampling) -> dict[str, int]:
    """What figures of sampled texts depend on beside the model: texts of other numbers and lengths do not compare."""
    return {"count": sampled.count, "tokens": sampled.tokens}


def calibration_metrics(exam: Exam, answers: Answers) -> dict[str, float]:
    """Every figure of ``FIGURES`` that can be measured on one model's answers."""
    said = answers.sampled
    found = {
        "ece": ece(exam, answers),
        "entropy": entropy(answers),
        "distinct_1": distinct(said, 1),
        "distinct_2": distinct(said, 2),
        "self_bleu": self_bleu(said),
        "words": fsum(len(text.split()) for text in said) / len(said) if said else None,
        "repeated": repeated(said),
    }
    return {name: value for name, value in found.items() if value is not None}


def ece(exam: Exam, answers: Answers) -> float | None:
    """Expected calibration error of the answers to written probes; None without any."""
    told = written(exam, answers)
    return calibration_error([one.confidence for one in told], [one.right for one in told])


class Told(NamedTuple):
    """An answer in the model's own words: how sure it was of it (0 to 1), and whether it is right."""

    probe: Probe
    confidence: float
    right: bool

    @property
    def bin(self) -> int:
        """Which of ``BINS`` equal bins of confidence it falls into."""
        return min(int(self.confidence * BINS), BINS - 1)


def written(exam: Exam, answers: Answers) -> tuple[Told, ...]:
    """The answers to written probes, in the order of the exam."""
    recall = [pair for name in exam.recall for pair in zip(exam.recall[name], answers.recall[name], strict=True)]
    return tuple(
        Told(probe, answers.certainty[probe.question()].confidence, is_right(probe, said))
        for probe, said in [*recall, *zip(exam.generalize, answers.generalize, strict=True)]
        if probe.is_written
    )


def calibration_error(sure: Sequence[float], right: Sequence[bool]) -> float | None:
    """Mean distance of confidence and accuracy, 0 to 1, over ten equal bins of confidence, each weighted by its answers
    (Guo et al., "On Calibration of Modern Neural Networks", 2017); None without answers."""
    gaps: dict[int, list[float]] = {}
    for confidence, is_so in zip(sure, right, strict=True):
        gaps.setdefault(min(int(confidence * BINS), BINS - 1), []).append(confidence - is_so)
    return fsum(abs(fsum(gap)) for gap in gaps.values()) / len(sure) if sure else None


def entropy(answers: Answers) -> float | None:
    """Mean entropy in nats of the next token, over all tokens of all prompts: how undecided the model is about how
    they go on. None without prompts."""
    asked = answers.certainty.values()
    tokens = sum(one.tokens for one in asked)
    return fsum(one.entropy * one.tokens for one in asked) / tokens if tokens else None


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct n-grams of words over all of them, 0 to 1 (after Li et al., "A Diversity-Promoting Objective Function",
    2016); None where no text has n words."""
    words = [text.split() for text in texts]
    grams = [tuple(said[start : start + n]) for said in words for start in range(len(said) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def repeated(texts: Sequence[str]) -> float | None:
    """Share of the texts that are equal to another one, 0 to 1; None for fewer than two."""
    counts = Counter(texts)
    return sum(counts[text] > 1 for text in texts) / len(texts) if len(texts) > 1 else None
