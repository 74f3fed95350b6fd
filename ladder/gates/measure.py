"""Figures from answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from ladder.errors import GateError
from ladder.gates.exam import Answers, Exam
from ladder.gates.grouped import Groups, groups_of
from ladder.gates.probes import Probe, score
from ladder.gates.suite_results import Figure
from ladder.gates.tone import drift

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
    """

    recall: Mapping[str, Scores] = field(default_factory=dict)
    generalize: Scores = ()
    tone_drift: float | None = None
    tone_n: int = 0
    remarks: tuple[str, ...] = ()
    suites: Mapping[str, Figure] = field(default_factory=dict)
    groups: Mapping[str, Groups] = field(default_factory=dict)

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
        groups={
            name: groups
            for name, probes in {**exam.recall, OWN: exam.generalize}.items()
            if (groups := groups_of(probes))
        },
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
