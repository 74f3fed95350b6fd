"""The gate report: what each gate measured, against what, and whether all of them passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ladder.errors import GateError
from ladder.gates.measurements import Retention
from ladder.laws import LawResult, Violation
from ladder.manifest import GATES

_METRICS = {"recall": "recall", "generalize": "generalize", "tone": "tone_drift", "laws": "law_violations"}


@dataclass(frozen=True)
class GateResult:
    """One gate.

    Args:
        name: one of ``GATES``, or that of a gate of ``gates.metrics`` or ``gates.custom``.
        passed: whether the child may be promoted as far as this gate goes.
        applicable: False where there was nothing to examine; ``detail`` says why.
        value: the child's figure; None where there is none.
        threshold: what it was held against.
        parent_value: the parent's figure on the same exam.
        n: probes, answers or violations behind the figure.
        detail: one sentence for people.
        low: lower bound of the difference to the parent; None where there is none to bound.
        high: upper bound.
    """

    name: str
    passed: bool
    applicable: bool
    value: float | None
    threshold: float | None
    parent_value: float | None
    n: int
    detail: str
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """In words: passed, failed or not applicable."""
        return ("passed" if self.passed else "failed") if self.applicable else "not applicable"


@dataclass(frozen=True)
class GateReport:
    """The verdict of the gates.

    Args:
        results: one for each of ``GATES``, in that order, and one for each gate of ``gates.metrics`` and
            ``gates.custom``.
        violations: every broken law.
        settings: the thresholds that were used.
        per_ancestor: how the child stands on each ancestor's probes.
        laws: every law that was examined; empty in reports from before laws were listed.
    """

    results: tuple[GateResult, ...]
    violations: tuple[Violation, ...]
    settings: Mapping[str, Any]
    per_ancestor: Mapping[str, Retention] = field(default_factory=dict)
    laws: tuple[LawResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Every gate was held and passed: the four first, and those that the settings ask for besides. A report
        without one of them has not passed."""
        names = tuple(result.name for result in self.results)
        asked = {gate["name"] for gate in self.settings.get("metrics", ())} | {*self.settings.get("custom", ())}
        return names[: len(GATES)] == GATES and asked <= set(names) and not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that did not pass."""
        return tuple(result.name for result in self.results if result.passed is not True)

    def metrics(self) -> dict[str, float]:
        """Figures by metric name, such as ``gate.recall`` and ``gate.recall.parent``; a missing one is left out."""
        found = {f"gate.recall.{name}": one.child for name, one in self.per_ancestor.items()}
        for result in self.results:
            metric = f"gate.{_METRICS.get(result.name, f'metrics.{result.name}')}"
            figures = {"": result.value, ".parent": result.parent_value, ".threshold": result.threshold}
            figures |= {".low": result.low, ".high": result.high}
            found |= {metric + suffix: value for suffix, value in figures.items() if value is not None}
        return found | {"gate.passed": float(self.passed)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON, with the verdict spelt out for people and other tools."""
        return {
            "passed": self.passed,
            "failed": list(self.failed),
            "results": [asdict(result) for result in self.results],
            "violations": [asdict(violation) for violation in self.violations],
            "settings": dict(self.settings),
            "per_ancestor": {name: asdict(one) for name, one in self.per_ancestor.items()},
            "laws": [law.to_dict() for law in self.laws],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> GateReport:
        """Read what ``to_dict`` wrote.

        Raises:
            GateError: it is no gate report, or it contradicts itself.
        """
        try:
            violations = tuple(Violation(**violation) for violation in stored["violations"])
            report = cls(
                tuple(GateResult(**result) for result in stored["results"]),
                violations,
                dict(stored["settings"]),
                {name: Retention(**one) for name, one in stored["per_ancestor"].items()},
                tuple(LawResult.from_dict(law, violations) for law in stored.get("laws", ())),
            )
            said, found = stored["passed"], report.passed
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GateError(f"no gate report: {error!r}", where="gate report") from error
        if said is not found:
            raise GateError(
                f"the report says passed={said}, its results give {found}",
                where="gate report",
                remedy="run the gates again",
            )
        return report
