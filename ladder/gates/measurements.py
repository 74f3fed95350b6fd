"""Figures from answers, the child on its ancestors' probes one ancestor at a time, and what it lost and gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from math import comb, fsum

from ladder.errors import GateError
from ladder.exam import Answers, Exam, Probe, Reading, SuiteMetric, Told, score
from ladder.gates.statistics import WHOLE, Groups, Interval, Reach, alone, grouped_interval, groups_of, paired_interval
from ladder.gates.tone import drift
from ladder.laws import TOLERANCE
from ladder.manifest import Gates, RecallGate

Scores = tuple[float, ...]
"""One score (0 to 1) for each probe, in the order of the exam."""

OWN = "own"
"""Stands for the child's own probes among the ancestors' names."""

Drift = Callable[[Sequence[str], Sequence[str]], float]
"""How far answers lie from a reference, 0 to 1."""


@dataclass(frozen=True)
class Measurements:
    """What the gates decide on.

    Args:
        recall: scores on the probes that each ancestor left; ancestors that left none are absent.
        generalize: scores on the child's own probes; empty where there are none.
        tone_drift: drift (0 to 1) from the reference; None without a reference, NaN where it could not be measured.
        tone_n: answers that drift was measured on.
        remarks: why a figure is NaN.
        suites: what other people's suites measured, by the gate that reads it.
        groups: which probes stand or fall together, by ancestor and ``OWN``; absent where each stands by itself.
        written: answers in the model's own words and how sure it was of each; empty where no gate asks.
        readings: what was read inside, by tone prompt, and ``concepts`` along which; empty where no gate asks.
        masses: of each forced choice the probability of all of its options together, 0 to 1.
    """

    recall: Mapping[str, Scores] = field(default_factory=dict)
    generalize: Scores = ()
    tone_drift: float | None = None
    tone_n: int = 0
    remarks: tuple[str, ...] = ()
    suites: Mapping[str, SuiteMetric] = field(default_factory=dict)
    groups: Mapping[str, Groups] = field(default_factory=dict)
    written: tuple[Told, ...] = ()
    readings: tuple[Reading, ...] = ()
    concepts: tuple[str, ...] = ()
    masses: tuple[float, ...] = ()

    @property
    def recall_by(self) -> dict[str, float]:
        """Accuracy on each ancestor's probes."""
        return {ancestor: mean(scores) for ancestor, scores in self.recall.items()}


def mean(scores: Sequence[float]) -> float:
    """Mean score; for all kinds of probes but ``nll`` that is the share of right answers."""
    return fsum(scores) / len(scores)


def accuracy(probes: Sequence[Probe], answers: Sequence[str]) -> float:
    """Mean score of the answers, 0 to 1.

    Raises:
        GateError: there are no probes, or not one answer for each.
    """
    if not probes:
        raise GateError("no probes to measure accuracy on", where="accuracy")
    return mean(_scores(probes, answers))


def measure(exam: Exam, answers: Answers, reference: Sequence[str] | None, drift: Drift = drift) -> Measurements:
    """Measure one model's answers.

    Args:
        reference: utterances in the voice that answers are held against; None where the tone is not gated.
        drift: measures the tone; stylometric when left out.

    Raises:
        GateError: answers are missing, or belong to another exam.
    """
    if exam.recall.keys() != answers.recall.keys():
        raise GateError(f"answers for {sorted(answers.recall)}, expected {sorted(exam.recall)}", where="recall")
    recall = {ancestor: _scores(probes, answers.recall[ancestor]) for ancestor, probes in exam.recall.items()}
    tone, remarks = _tone(exam, answers, reference, drift)
    return Measurements(
        recall={ancestor: scores for ancestor, scores in recall.items() if scores},
        generalize=_scores(exam.generalize, answers.generalize),
        tone_drift=tone,
        tone_n=0 if reference is None else len(answers.tone),
        remarks=remarks,
        readings=answers.readings,
        concepts=exam.readout.vectors.concepts if exam.readout else (),
        groups={
            name: groups
            for name, probes in {**exam.recall, OWN: exam.generalize}.items()
            if (groups := groups_of(probes))
        },
        masses=tuple(answers.masses[probe] for probe in exam.choices),
    )


def _scores(probes: Sequence[Probe], answers: Sequence[str]) -> Scores:
    if len(probes) != len(answers):
        raise GateError(f"{len(answers)} answers to {len(probes)} probes", where="accuracy")
    return tuple(score(probe, answer) for probe, answer in zip(probes, answers, strict=True))


def _tone(
    exam: Exam, answers: Answers, reference: Sequence[str] | None, drift: Drift
) -> tuple[float | None, tuple[str, ...]]:
    """The drift; NaN and the reason where it cannot be measured, so that the gate fails and says why."""
    if reference is None:
        return None, ()
    if len(exam.tone_prompts) != len(answers.tone):
        raise GateError(f"{len(answers.tone)} answers to {len(exam.tone_prompts)} tone prompts", where="tone")
    try:
        return drift(answers.tone, reference), ()
    except GateError as error:
        return float("nan"), (f"tone: {error}",)


_ANSWERED = (0.0, 1.0)

Parts = Mapping[str, Scores]
"""Scores by the ancestor who left the probes; none of them empty."""


@dataclass(frozen=True)
class Retention:
    """Scores and their difference on one ancestor's probes.

    Args:
        child: the child's accuracy (0 to 1).
        parent: the parent's; None for a genesis.
        origin: that of the ancestor itself, when it was examined; None where it is not known.
        n: how many probes.
        low: lower bound of the difference to the parent.
        high: upper bound.
        fallen: why recall does not pass for this ancestor alone; empty where it does.
    """

    child: float
    parent: float | None = None
    origin: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    fallen: str = ""


def retention_of(
    gates: Gates,
    ours: Parts,
    theirs: Parts | None,
    origins: Mapping[str, float],
    groups: Mapping[str, Groups] | None = None,
) -> dict[str, Retention]:
    """The child on each ancestor's probes; nothing where the two were not asked the same exam.

    An ancestor is forgotten where the child answers more than ``max_drop`` fewer than the parent and that is no chance:
    the upper bound of the difference is below 0. Each of k ancestors is judged at 1 - (1 - confidence) / k, so that
    chance finds one among all of them no more often than the confidence says (Bonferroni). It has slid too far where
    the child lies more than ``max_slide`` below what the ancestor itself answered: small drops add up.
    """
    if not ours or why_not(ours, theirs):
        return {}
    confidence = 1 - (1 - gates.confidence) / len(ours)
    bounds = {
        name: bounds_of({name: scores}, {name: theirs[name]} if theirs else None, confidence, groups)
        for name, scores in ours.items()
    }
    return {
        name: _retention(gates.recall, scores, theirs[name] if theirs else None, origins.get(name), bounds[name])
        for name, scores in ours.items()
    }


def overall(scores: Parts) -> float:
    """Mean over ancestors of their means: one with many probes does not drown the others."""
    return mean([mean(each) for each in scores.values()])


def bounds_of(
    ours: Parts, theirs: Parts | None, confidence: float, groups: Mapping[str, Groups] | None = None
) -> Interval | None:
    """Bounds of the difference to the parent; None where there is no parent.

    Where probes stand or fall together they are the wider of the bounds over probes and those over groups.
    """
    if theirs is None:
        return None
    differences = {name: _differences(scores, theirs[name]) for name, scores in ours.items()}
    reaches = [reach_of(scores, theirs[name]) for name, scores in ours.items()]
    by_probe = paired_interval([*differences.values()], confidence, reaches=reaches)
    together = {name: found for name, found in (groups or {}).items() if name in ours}
    if not together:
        return by_probe
    strata = [(each, together.get(name) or alone(len(each))) for name, each in differences.items()]
    return by_probe.widened(grouped_interval(strata, confidence))


def reach_of(ours: Scores, theirs: Scores) -> Reach:
    """What one more probe like these may lose and gain: an answer is right or wrong, a likelihood loses at most what
    the parent gave the text and gains at most what is missing to 1.

    A score that is neither 0 nor 1 is that of a likelihood. One that is may be either's, and counts as an answer, whose
    reach is the widest there is. By how much the scores did change plays no part.
    """
    if any(child in _ANSWERED and parent in _ANSWERED for child, parent in zip(ours, theirs, strict=True)):
        return WHOLE
    return Reach(max(theirs), 1 - min(theirs))


def why_not(ours: Parts, theirs: Parts | None) -> str:
    """Why scores cannot be compared; empty where they can. NaN is in no range."""
    for whose, scores in (("child", ours), ("parent", theirs or {})):
        strange = [score for each in scores.values() for score in each if not 0 <= score <= 1]
        if strange:
            return f"one of the {whose}'s figures is {strange[0]:.4g}, expected 0 to 1"
    if theirs is not None and _sizes(ours) != _sizes(theirs):
        return f"the child was asked {_sizes(ours)} and the parent {_sizes(theirs)}, expected the same exam"
    return ""


def _retention(
    gate: RecallGate, ours: Scores, theirs: Scores | None, origin: float | None, bounds: Interval | None
) -> Retention:
    now, fallen = mean(ours), ""
    if origin is not None and now < origin - gate.max_slide - TOLERANCE:
        fallen = f"slid too far: it had {origin:.4f} itself, the child has {now:.4f}"
    if theirs is None or bounds is None:
        return Retention(now, None, origin, len(ours), fallen=fallen)
    before = mean(theirs)
    if now < before - gate.max_drop - TOLERANCE and bounds.high < 0:
        fallen = f"was forgotten: the parent has {before:.4f}, the child {now:.4f}"
    return Retention(now, before, origin, len(ours), bounds.low, bounds.high, fallen)


def _differences(ours: Scores, theirs: Scores) -> list[float]:
    return [child - parent for child, parent in zip(ours, theirs, strict=True)]


def _sizes(scores: Parts) -> str:
    return ", ".join(f"{len(each)} probes of {name}" for name, each in sorted(scores.items())) or "nothing"


_SAME = 1e-6
"""Likelihoods that differ by less are the same: the order of a sum, not a change of mind."""


@dataclass(frozen=True)
class Regression:
    """A probe with what parent and child said to it. In a list of ``worst`` the child scores less than the parent."""

    part: str
    """The ancestor who left the probe, or ``generalize``."""
    prompt: str
    expected: str
    parent: str
    child: str


@dataclass(frozen=True)
class Comparison:
    """Child against parent on the same probes.

    Args:
        n: probes compared.
        lost: where the child scores less: right in the parent and wrong in the child, or of ``nll`` any loss.
        gained: where it scores more.
        worst: some of the lost ones, those of the part that lost the largest share first.
        won: some of the gained ones, and ``kept`` of those that are as right as they were; each part in turn.
    """

    n: int
    lost: int
    gained: int
    worst: tuple[Regression, ...]
    won: tuple[Regression, ...] = ()
    kept: tuple[Regression, ...] = ()

    @property
    def p_value(self) -> float:
        """Chance of a split of lost and gained at least this uneven between equal models (two-sided sign test)."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        return min(1.0, 2 * sum(comb(changed, k) for k in range(fewer + 1)) / 2**changed)


def compare(exam: Exam, child: Answers, parent: Answers, cap: int = 20) -> Comparison:
    """Compare two models' answers to one exam; at most ``cap`` regressions are listed, and fewer examples of the rest.

    Raises:
        GateError: answers are missing on one side.
    """
    parts = {**{name: exam.recall[name] for name in exam.recall}, "generalize": exam.generalize}
    lost: dict[str, list[Regression]] = {}
    won: dict[str, list[Regression]] = {}
    kept: dict[str, list[Regression]] = {}
    for part, probes in parts.items():
        ours, theirs = _answers(child, part, probes), _answers(parent, part, probes)
        judged = [
            (
                Regression(part, probe.question().shown, probe.answer, before, now),
                score(probe, before),
                score(probe, now),
            )
            for probe, before, now in zip(probes, theirs, ours, strict=True)
        ]
        lost[part] = [one for one, was, is_now in judged if is_now < was - _SAME]
        won[part] = [one for one, was, is_now in judged if is_now > was + _SAME]
        kept[part] = [one for one, was, is_now in judged if abs(is_now - was) <= _SAME < is_now]
    worst = [regression for part in _by_share_lost(lost, parts) for regression in lost[part]]
    gained = sum(map(len, won.values()))
    examples = _in_turn(won, EXAMPLES), _in_turn(kept, EXAMPLES)
    return Comparison(sum(map(len, parts.values())), len(worst), gained, tuple(worst[:cap]), *examples)


@dataclass(frozen=True)
class WrongAnswer:
    """One of a child's own probes that it answers wrongly."""

    prompt: str
    expected: str
    child: str


@dataclass(frozen=True)
class Missed:
    """What a child does not answer of what it was to learn, whatever its parent says to it.

    Args:
        n: own probes that can be right or wrong; an ``nll`` probe is neither.
        wrong: how many are wrong.
        some: the first of these.
    """

    n: int
    wrong: int
    some: tuple[WrongAnswer, ...]


def missed(exam: Exam, child: Answers, cap: int = 20) -> Missed:
    """A child's own probes that it answers wrongly; at most ``cap`` are listed."""
    given = zip(exam.generalize, _answers(child, "generalize", exam.generalize), strict=True)
    judged = [(probe, said) for probe, said in given if probe.kind != "nll"]
    wrong = [
        WrongAnswer(probe.question().shown, probe.answer, said) for probe, said in judged if not score(probe, said)
    ]
    return Missed(len(judged), len(wrong), tuple(wrong[:cap]))


EXAMPLES = 8
"""Of what was gained, and of what was kept."""


def _in_turn(found: Mapping[str, Sequence[Regression]], most: int) -> tuple[Regression, ...]:
    """Some of all parts: the first of each, then the second of each."""
    turns = (one for turn in zip_longest(*found.values()) for one in turn if one is not None)
    return tuple(islice(turns, most))


def _answers(answers: Answers, part: str, probes: Sequence[Probe]) -> Sequence[str]:
    given = answers.generalize if part == "generalize" else answers.recall.get(part, ())
    if len(given) != len(probes):
        raise GateError(f"{len(given)} answers to {len(probes)} probes", where=part)
    return given


def _by_share_lost(lost: dict[str, list[Regression]], parts: dict[str, tuple[Probe, ...]]) -> list[str]:
    return sorted(lost, key=lambda part: -len(lost[part]) / max(1, len(parts[part])))
