"""What the child lost and gained against its parent, probe by probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from ladder.errors import GateError
from ladder.gates.exam import Answers, Exam
from ladder.gates.probes import Probe, score

_SAME = 1e-6
"""Likelihoods that differ by less are the same: the order of a sum, not a change of mind."""


@dataclass(frozen=True)
class Regression:
    """A probe on which the child scores less than the parent."""

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
    """

    n: int
    lost: int
    gained: int
    worst: tuple[Regression, ...]

    @property
    def p_value(self) -> float:
        """Chance of a split of lost and gained at least this uneven between equal models (two-sided sign test)."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        return min(1.0, 2 * sum(comb(changed, k) for k in range(fewer + 1)) / 2**changed)


def compare(exam: Exam, child: Answers, parent: Answers, cap: int = 20) -> Comparison:
    """Compare two models' answers to one exam; at most ``cap`` regressions are listed.

    Raises:
        GateError: answers are missing on one side.
    """
    parts = {**{name: exam.recall[name] for name in exam.recall}, "generalize": exam.generalize}
    lost: dict[str, list[Regression]] = {}
    gained = 0
    for part, probes in parts.items():
        ours, theirs = _answers(child, part, probes), _answers(parent, part, probes)
        judged = [
            (Regression(part, probe.prompt, probe.answer, before, now), score(probe, before), score(probe, now))
            for probe, before, now in zip(probes, theirs, ours, strict=True)
        ]
        lost[part] = [regression for regression, was, is_now in judged if is_now < was - _SAME]
        gained += sum(is_now > was + _SAME for _, was, is_now in judged)
    worst = [regression for part in _by_share_lost(lost, parts) for regression in lost[part]]
    return Comparison(sum(map(len, parts.values())), len(worst), gained, tuple(worst[:cap]))


def _answers(answers: Answers, part: str, probes: Sequence[Probe]) -> Sequence[str]:
    given = answers.generalize if part == "generalize" else answers.recall.get(part, ())
    if len(given) != len(probes):
        raise GateError(f"{len(given)} answers to {len(probes)} probes", where=part)
    return given


def _by_share_lost(lost: dict[str, list[Regression]], parts: dict[str, tuple[Probe, ...]]) -> list[str]:
    return sorted(lost, key=lambda part: -len(lost[part]) / max(1, len(parts[part])))
