"""Figures from answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ladder.errors import GateError
from ladder.gates.exam import Answers, Exam
from ladder.gates.probes import Probe, score
from ladder.gates.tone import drift

Drift = Callable[[Sequence[str], Sequence[str]], float]
"""How far answers lie from a reference, 0 to 1."""


@dataclass(frozen=True)
class Measurements:
    """What the gates decide on. A figure is None where nothing was asked, NaN where it could not be measured.

    Args:
        recall: accuracy (0 to 1) over all ancestors' probes pooled: each probe weighs the same.
        recall_n: how many probes that is.
        recall_by: accuracy on each ancestor's probes; ancestors that left none are absent.
        generalize: accuracy (0 to 1) on the child's own probes.
        generalize_n: how many probes that is.
        tone_drift: drift (0 to 1) from the reference; None without a reference.
        tone_n: answers that drift was measured on.
        remarks: why a figure is NaN.
    """

    recall: float | None
    recall_n: int
    generalize: float | None
    generalize_n: int
    tone_drift: float | None = None
    tone_n: int = 0
    recall_by: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def accuracy(probes: Sequence[Probe], answers: Sequence[str]) -> float:
    """Mean score of the answers, 0 to 1: the share of right ones, but for ``nll``.

    Raises:
        GateError: there are no probes, or not one answer for each.
    """
    if not probes:
        raise GateError("no probes to measure accuracy on", where="accuracy")
    return _scored(probes, answers) / len(probes)


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
    parts = {ancestor: (probes, answers.recall[ancestor]) for ancestor, probes in exam.recall.items()}
    recall_n = sum(len(probes) for probes, _ in parts.values())
    recall_scored = sum(_scored(probes, given) for probes, given in parts.values())
    generalize_scored = _scored(exam.generalize, answers.generalize)
    tone, remarks = _tone(exam, answers, reference, drift)
    return Measurements(
        recall=_share(recall_scored, recall_n),
        recall_n=recall_n,
        generalize=_share(generalize_scored, len(exam.generalize)),
        generalize_n=len(exam.generalize),
        tone_drift=tone,
        tone_n=0 if reference is None else len(answers.tone),
        recall_by={ancestor: accuracy(probes, given) for ancestor, (probes, given) in parts.items() if probes},
        remarks=remarks,
    )


def _scored(probes: Sequence[Probe], answers: Sequence[str]) -> float:
    if len(probes) != len(answers):
        raise GateError(f"{len(answers)} answers to {len(probes)} probes", where="accuracy")
    return sum(score(probe, answer) for probe, answer in zip(probes, answers, strict=True))


def _share(scored: float, n: int) -> float | None:
    return scored / n if n else None


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
