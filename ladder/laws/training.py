"""Laws of the training itself, judged step by step from what the steps report. Pure: knows neither files nor actors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from ladder.exam import SAMPLED
from ladder.laws.law import Findings, Violation
from ladder.laws.text import canaries_said, forbidden_text, taboo
from ladder.manifest import Manifest

if TYPE_CHECKING:
    from ladder.train.spec import StepReport

NO_NAN, SAMPLES = "no_nan", "sample_every"
TRAINING_SAMPLES = 16
"""Texts at most that are sampled each time."""


class Rule(NamedTuple):
    """How one figure of a step is held against its limit.

    Args:
        figure: field of the report.
        more: steps that it looks at beyond the window.
        judge: from the figures of these steps, the newest last, and the limit to what is wrong; None where nothing is.
    """

    figure: str
    more: int
    judge: Callable[[Sequence[float], float], str | None]


def _spike(figures: Sequence[float], limit: float) -> str | None:
    *before, now = figures
    middle = median(before)
    if now <= limit * middle:
        return None
    return f"{now:.4g}, and the median of the {len(before)} steps before is {middle:.4g}; allowed {limit:g} times that"


def _above(figures: Sequence[float], limit: float) -> str | None:
    found = fmean(figures)
    return None if found <= limit else f"{found:.4g} over {len(figures)} steps, at most {limit:g} allowed"


def _below(figures: Sequence[float], limit: float) -> str | None:
    found = fmean(figures)
    return None if found >= limit else f"{found:.4g} over {len(figures)} steps, at least {limit:g} needed"


RULES = {
    "max_loss_spike": Rule("loss", 1, _spike),
    "max_grad_norm_spike": Rule("grad_norm", 1, _spike),
    "max_kl": Rule("kl", 0, _above),
    "min_entropy": Rule("entropy", 0, _below),
}
"""The laws of ``laws.training`` that look back over a window, by their word there."""


@dataclass
class Tally:
    """Counts and the first violation of one law so far.

    Args:
        n: what it examined: steps, or texts.
        broken: how many of them broke it.
        first: the first of these.
    """

    n: int = 0
    broken: int = 0
    first: Violation | None = None

    def count(self, n: int, violations: Sequence[Violation]) -> None:
        self.n += n
        self.broken += len({violation.where for violation in violations})
        self.first = self.first or next(iter(violations), None)

    def findings(self) -> Findings:
        """The first violation stands for all, which may be as many as there are steps."""
        remark = f"{self.broken} of {self.n} broke it" if self.broken else ""
        return Findings(self.n, (self.first,) if self.first else (), remark=remark)


@dataclass
class TrainingRules:
    """The monitor of one training. What it has seen survives a run that is cut off: ``to_dict`` and ``of``.

    Args:
        canaries: the lines of ``laws.canaries``.
        recent: the last figures of each law that looks back.
        tallies: by law.
    """

    manifest: Manifest
    canaries: Sequence[str] = ()
    recent: dict[str, deque[float]] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, canaries: Sequence[str], noted: Mapping[str, Any] | None) -> TrainingRules:
        """Begin, or go on from what ``to_dict`` wrote."""
        watch = cls(manifest, canaries)
        for law, one in (noted or {}).items():
            first = Violation(**one["first"]) if one["first"] else None
            watch.tallies[law] = Tally(one["n"], one["broken"], first)
            watch.recent[law] = deque(one["recent"], watch._length(law))
        return watch

    def to_dict(self) -> dict[str, Any]:
        """Plain data: of each law its tally and recent figures."""
        return {
            law: asdict(self.tallies.get(law, Tally())) | {"recent": [*self.recent.get(law, ())]}
            for law in self.tallies | self.recent
        }

    def see(self, report: StepReport) -> list[Violation]:
        """Judge one step; what is wrong with it. A step in which nothing moved is not judged."""
        if not report.ticked or self.manifest.laws.training is None:
            return []
        found = self._counted(NO_NAN, 1, _nan(report))
        for law, limit in self._limits().items():
            found += self._look_back(law, limit, report)
        return found

    def read(self, step: int, texts: Sequence[str]) -> list[Violation]:
        """Judge texts that the student wrote after so many steps; what is wrong with them."""
        laws, stabilizers = self.manifest.laws, self.manifest.stabilizers
        named = {f"step {step}, {SAMPLED}": texts}
        words = stabilizers.taboo_words if stabilizers.token_masking else []
        broken = forbidden_text(named, laws.forbidden_text) + taboo(named, words) + canaries_said(named, self.canaries)
        return self._counted(
            SAMPLES, len(texts), [Violation(SAMPLES, f"{one.law}: {one.found}", one.where) for one in broken]
        )

    def findings(self) -> dict[str, Findings]:
        """What each law examined and found so far."""
        return {law: tally.findings() for law, tally in self.tallies.items()}

    def _limits(self) -> dict[str, float]:
        laws = self.manifest.laws.training
        asked = {law: getattr(laws, law) for law in RULES}
        return {law: limit for law, limit in asked.items() if limit is not None}

    def _length(self, law: str) -> int:
        """Steps that a law looks at."""
        assert self.manifest.laws.training is not None
        return self.manifest.laws.training.window + (RULES[law].more if law in RULES else 0)

    def _look_back(self, law: str, limit: float, report: StepReport) -> list[Violation]:
        """Judge one figure, once there are as many as the law looks at; a step without it is not judged."""
        figure, length = getattr(report, RULES[law].figure), self._length(law)
        if figure is None:
            return []
        recent = self.recent.setdefault(law, deque(maxlen=length))
        recent.append(figure)
        if len(recent) < length:
            return []
        wrong = RULES[law].judge(list(recent), limit)
        found = [Violation(law, f"{RULES[law].figure} {wrong}", f"step {report.step}")] if wrong else []
        return self._counted(law, 1, found)

    def _counted(self, law: str, n: int, violations: list[Violation]) -> list[Violation]:
        self.tallies.setdefault(law, Tally()).count(n, violations)
        return violations


def _nan(report: StepReport) -> list[Violation]:
    """The step's figures that are not a number."""
    figures = {"loss": report.loss, "grad_norm": report.grad_norm, "kl": report.kl, "entropy": report.entropy}
    found = [name for name, value in (figures | report.terms).items() if value is not None and math.isnan(value)]
    return [Violation(NO_NAN, f"{', '.join(found)} is not a number", f"step {report.step}")] if found else []
