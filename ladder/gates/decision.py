"""The decision: four gates, that of ``gates.calibration`` and those of ``gates.metrics``, each a figure held against a
threshold. All must pass.

It is a report: what each gate measured, against what, and whether all of them passed. Gates that a user wrote are
callables that other distributions declare as entry points of the group ``ladder.gates``: each is given the exam and
what child and parent answered, and returns a ``GateResult``. It can reject a child, and nothing else: it passes only
with a result that says so plainly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ladder.concepts.shifts import Shift, shifts_of
from ladder.errors import GateError, ManifestError
from ladder.exam import Answers, Exam, SuiteMetric, calibration_error
from ladder.gates.measurements import OWN, Measurements, Retention, bounds_of, mean, overall, retention_of, why_not
from ladder.gates.statistics import Interval, calibration_interval
from ladder.laws import TOLERANCE, LawResult, Violation, sampled_sentence
from ladder.manifest import (
    GATES,
    CalibrationGate,
    CoherenceGate,
    Gates,
    GeneralizeGate,
    MetricGate,
    RecallGate,
    ToneGate,
    installed,
)

_OPTIONAL = ("calibration", "coherence")
"""Gates that are there where the manifest has their section."""
_METRICS = {"recall": "recall", "generalize": "generalize", "tone": "tone_drift", "laws": "law_violations"}


@dataclass(frozen=True)
class GateResult:
    """One gate.

    Args:
        name: one of ``GATES``, ``calibration``, or that of a gate of ``gates.metrics`` or ``gates.custom``.
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
        results: one for each of ``GATES``, in that order, one for ``gates.calibration`` where it is there, and one for
            each gate of ``gates.metrics`` and ``gates.custom``.
        violations: every broken law.
        settings: the thresholds that were used.
        per_ancestor: how the child stands on each ancestor's probes.
        laws: every law that was examined; empty in reports from before laws were listed.
        shifts: what moved inside, concept by concept; empty where nothing was read there.
    """

    results: tuple[GateResult, ...]
    violations: tuple[Violation, ...]
    settings: Mapping[str, Any]
    per_ancestor: Mapping[str, Retention] = field(default_factory=dict)
    laws: tuple[LawResult, ...] = ()
    shifts: tuple[Shift, ...] = ()

    @property
    def passed(self) -> bool:
        """Every gate was held and passed: the four first, and those that the settings ask for besides. A report
        without one of them has not passed."""
        names = tuple(result.name for result in self.results)
        asked = {gate["name"] for gate in self.settings.get("metrics", ())} | {*self.settings.get("custom", ())}
        asked |= {name for name in _OPTIONAL if self.settings.get(name)}
        return names[: len(GATES)] == GATES and asked <= set(names) and not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that did not pass."""
        return tuple(result.name for result in self.results if result.passed is not True)

    def metrics(self) -> dict[str, float]:
        """Figures by metric name, such as ``gate.recall`` and ``gate.recall.parent``; a missing one is left out."""
        found = {f"gate.recall.{name}": one.child for name, one in self.per_ancestor.items()}
        own = _METRICS | {name: name for name in _OPTIONAL if self.settings.get(name)}
        for result in self.results:
            metric = f"gate.{own.get(result.name, f'metrics.{result.name}')}"
            figures = {"": result.value, ".parent": result.parent_value, ".threshold": result.threshold}
            figures |= {".low": result.low, ".high": result.high}
            found |= {metric + suffix: value for suffix, value in figures.items() if value is not None}
        for one in self.shifts:
            found |= {f"readout.{one.concept}": one.value, f"readout.{one.concept}.low": one.low}
            found[f"readout.{one.concept}.high"] = one.high
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
        } | ({"shifts": [asdict(one) for one in self.shifts]} if self.shifts else {})

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
                tuple(Shift(**one) for one in stored.get("shifts", ())),
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


_ANY_GAIN = 10 * TOLERANCE
"""What counts as better than a parent's 0, of which no share can be asked."""


def hold(gate: MetricGate, child: SuiteMetric | None, parent: SuiteMetric | None) -> GateResult:
    """The result of a gate: the child's figure against its thresholds.

    Args:
        child: the child's figure; None where it was not measured, which fails.
        parent: the parent's; None without a parent, which fails where a change is asked for.
    """
    before = parent.value if parent is not None and math.isfinite(parent.value) else None
    if child is None or (problem := _why_not(gate, child, parent)):
        said = "was not measured" if child is None else problem
        return GateResult(gate.name, False, True, None, gate.threshold, before, 0, f"{_title(gate)} {said}")
    pick, side = (max, "at least") if gate.greater_is_better else (min, "at most")
    threshold = pick(_needs(gate, before))
    ahead = child.value - threshold if gate.greater_is_better else threshold - child.value
    against = "" if before is None else f", the parent has {before:.4f}"
    detail = f"{_title(gate)} {_figure_said(child)}{against}, {side} {threshold:.4f} needed"
    return GateResult(gate.name, ahead >= -TOLERANCE, True, child.value, threshold, before, child.n, detail)


def _why_not(gate: MetricGate, child: SuiteMetric, parent: SuiteMetric | None) -> str:
    """Why the figures cannot be held against anything; empty where they can."""
    if not math.isfinite(child.value):
        return f"has no figure of the child: {child.remark or child.value}"
    if child.greater_is_better not in (None, gate.greater_is_better):
        said = "greater" if child.greater_is_better else "less"
        return f"is better where it is {said}, as the task says; greater_is_better says the opposite"
    if gate.min_absolute_change is None and gate.min_relative_change is None:
        return ""
    if parent is None:
        return "has no figure of a parent to change against"
    return "" if math.isfinite(parent.value) else f"has no figure of the parent: {parent.remark or parent.value}"


def _needs(gate: MetricGate, before: float | None) -> list[float]:
    """What each threshold asks for; all of them hold where the strictest does."""
    sign = 1 if gate.greater_is_better else -1
    needs = [] if gate.threshold is None else [gate.threshold]
    if before is not None and gate.min_absolute_change is not None:
        needs.append(before + sign * gate.min_absolute_change)
    if before is not None and gate.min_relative_change is not None:
        share = gate.min_relative_change * abs(before)
        needs.append(before + sign * (_ANY_GAIN if before == 0 and gate.min_relative_change > 0 else share))
    return needs


def _title(gate: MetricGate) -> str:
    return f"{gate.source.metric} of {gate.source.task}"


def _figure_said(figure: SuiteMetric) -> str:
    error = "" if figure.stderr is None else f" ± {figure.stderr:.4f}"
    return f"{figure.value:.4f}{error} over {figure.n} documents"


def decide(
    gates: Gates,
    child: Measurements,
    parent: Measurements | None,
    laws: Sequence[LawResult] | None,
    origins: Mapping[str, float] | None = None,
    custom: Sequence[GateResult] = (),
) -> GateReport:
    """Hold a child against its parent and the manifest's thresholds.

    Args:
        gates: the thresholds.
        child: figures of the child.
        parent: figures of the parent on the same exam; None for a genesis.
        laws: what became of each law; None where the laws were not examined, which fails.
        origins: accuracy (0 to 1) of each ancestor on its own probes when it was examined itself, where that is known.
        custom: what the gates of ``gates.custom`` said; one that said nothing fails.
    """
    retentions = retention_of(gates, child.recall, parent.recall if parent else None, origins or {}, child.groups)
    tone, shifts = _tone(gates, child, parent)
    results = (
        _recall(gates, child, parent, retentions),
        _generalize(gates, child, parent),
        tone,
        _laws(laws),
        *([_calibration(gates.calibration, gates.confidence, child, parent)] if gates.calibration else []),
        *([_coherence(gates.coherence, child, parent)] if gates.coherence else []),
        *(hold(gate, child.suites.get(gate.name), _of(parent, gate.name)) for gate in gates.metrics),
        *(_custom(name, custom) for name in gates.custom),
    )
    broken = tuple(violation for law in laws or () for violation in law.found.violations)
    # A report without these is the one that was written before there were any.
    unsaid: dict[str, Any] = {name: True for name in _OPTIONAL if getattr(gates, name) is None}
    unsaid |= {} if gates.tone.readout else {"tone": {"readout"}}
    settings = gates.model_dump(mode="json", exclude=unsaid)
    return GateReport(results, broken, settings, retentions, tuple(laws or ()), shifts)


def is_drop_ruled_out(gate: RecallGate, bounds: Interval | None) -> bool:
    """Whether a drop beyond ``max_drop`` is ruled out as far as the gate's evidence asks; without a parent there is
    none."""
    return gate.evidence == "point" or bounds is None or bounds.low >= -gate.max_drop - TOLERANCE


def is_gain_beyond_chance(gate: GeneralizeGate, bounds: Interval | None) -> bool:
    """Whether the gain is beyond chance as far as the gate's evidence asks; without a parent nothing is asked."""
    return gate.evidence == "point" or bounds is None or bounds.low > _margin(gate)


def _margin(gate: GeneralizeGate) -> float:
    """What the gain must lie above: where the manifest allows a loss, that loss is what must be ruled out."""
    return min(0.0, gate.min_gain)


def _of(parent: Measurements | None, gate: str) -> SuiteMetric | None:
    return parent.suites.get(gate) if parent else None


def _recall(
    gates: Gates, child: Measurements, parent: Measurements | None, retentions: Mapping[str, Retention]
) -> GateResult:
    gate, theirs = gates.recall, parent.recall if parent else None
    if not child.recall and not theirs:
        if parent is None:
            return _not_applicable("recall", "a genesis has no ancestors, so there is nothing to forget")
        if gate.minimum == 0:
            return _not_applicable("recall", "no ancestor left any probes, so forgetting was not measured")
        return _failed("recall", "no ancestor left any probes, and gates.recall.minimum asks for a figure")
    if problem := why_not(child.recall, theirs):
        return _failed("recall", problem)
    ours, before = overall(child.recall), overall(theirs) if theirs else None
    n = sum(map(len, child.recall.values()))
    threshold = max(gate.minimum, before - gate.max_drop) if before is not None else gate.minimum
    bounds = bounds_of(child.recall, theirs, gates.confidence, child.groups)
    fallen = [f"{name} {one.fallen}" for name, one in retentions.items() if one.fallen]
    sure = is_drop_ruled_out(gate, bounds)
    passed = ours >= threshold - TOLERANCE and sure and not fallen
    asked = f"{n} probes of {len(child.recall)} ancestor{'' if len(child.recall) == 1 else 's'}"
    needed = f"at least {threshold:.4f} needed" + ("" if sure else f", and a drop of {gate.max_drop:g} ruled out")
    detail = "; ".join([f"{ours:.4f} over {asked}{_against(before, bounds)}, {needed}", *fallen])
    return GateResult("recall", passed, True, ours, threshold, before, n, detail, *_ends(bounds))


def _generalize(gates: Gates, child: Measurements, parent: Measurements | None) -> GateResult:
    gate = gates.generalize
    if not child.generalize:
        if gate.minimum == 0 and (parent is None or gate.min_gain == -1):
            return _not_applicable("generalize", "no probes, and the manifest asks for nothing")
        return _failed("generalize", "no probes: data.probes must hold questions that the child has not seen")
    own, theirs = {OWN: child.generalize}, {OWN: parent.generalize} if parent else None
    if problem := why_not(own, theirs):
        return _failed("generalize", problem)
    ours, before = mean(child.generalize), mean(parent.generalize) if parent else None
    threshold = gate.minimum if before is None else max(gate.minimum, min(before + gate.min_gain, gate.ceiling))
    bounds = bounds_of(own, theirs, gates.confidence, child.groups)
    sure = is_gain_beyond_chance(gate, bounds) or ours >= gate.ceiling - TOLERANCE
    needed = f"at least {threshold:.4f} needed" + ("" if sure else f", and a gain above {_margin(gate):g} beyond doubt")
    n, together = len(child.generalize), len(set(child.groups.get(OWN, ())))
    asked = f"{n} probes" + (f" in {together} groups" if together else "")
    detail = f"{ours:.4f} over {asked}{_against(before, bounds)}, {needed}"
    passed = ours >= threshold - TOLERANCE and sure
    return GateResult("generalize", passed, True, ours, threshold, before, n, detail, *_ends(bounds))


def _tone(gates: Gates, child: Measurements, parent: Measurements | None) -> tuple[GateResult, tuple[Shift, ...]]:
    """The result, and what moved inside where that is what is measured."""
    gate = gates.tone
    if gate.reference == "none":
        return _not_applicable("tone", "no reference voice"), ()
    if gate.readout is None:
        return _drift(gate, child, parent), ()
    if parent is None:
        return _failed("tone", "no parent whose readings the child's could be held against"), ()
    try:
        readout = gate.readout
        told = shifts_of(
            child.concepts, child.readings, parent.readings, gates.confidence, readout.max_shift, readout.limits
        )
    except GateError as error:
        return _failed("tone", str(error)), ()
    return _moved(told), told


def _moved(shifts: Sequence[Shift]) -> GateResult:
    """The concept that uses most of its limit stands for all; of those without a limit the one that moved farthest."""
    worst = max(shifts, key=lambda one: (one.is_beyond, abs(one.value) / one.limit if one.limit else 0, abs(one.value)))
    beyond = [one for one in shifts if one.is_beyond]
    said = [_shift_said(one) for one in beyond or [worst]]
    limit = "no limit" if worst.limit is None else f"at most {worst.limit:g}"
    judged = f"{_counted(len(beyond), 'concept')} of {len(shifts)} beyond the limit: " if beyond else "most of all "
    detail = f"{judged}{'; '.join(said)}, {limit} allowed, over {worst.n} prompts (readout, parent's deviations)"
    return GateResult(
        "tone", not beyond, True, abs(worst.value), worst.limit, None, worst.n, detail, worst.low, worst.high
    )


def _shift_said(one: Shift) -> str:
    return f"{one.concept} {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


def _drift(gate: ToneGate, child: Measurements, parent: Measurements | None) -> GateResult:
    before, drift = parent.tone_drift if parent else None, child.tone_drift
    if drift is None or child.tone_n <= 0 or not 0 <= drift <= 1:
        found = f"the child's figure is {_shown(drift)} over {child.tone_n} answers, expected 0 to 1"
        return _failed("tone", "; ".join([found, *child.remarks]), gate.max_drift)
    voice = "parent" if gate.reference == "parent" else "reference"
    detail = f"{drift:.4f} from the {voice} over {child.tone_n} answers ({gate.measure}), at most {gate.max_drift:.4f}"
    passed = drift <= gate.max_drift + TOLERANCE
    return GateResult("tone", passed, True, drift, gate.max_drift, _finite(before), child.tone_n, detail)


def _laws(laws: Sequence[LawResult] | None) -> GateResult:
    if laws is None:
        return _failed("laws", "the laws were not examined", 0.0)
    violations = [violation for law in laws for violation in law.found.violations]
    parts = [f"{_counted(len(violations), 'violation')} of {_counted(len(laws), 'law')}"]
    parts += [f"{first.law} at {first.where}: {first.found}" for first in violations[:1]]
    detail = "; ".join(part for part in (*parts, sampled_sentence(laws)) if part)
    return GateResult("laws", not violations, True, float(len(violations)), 0.0, None, len(violations), detail)


def _calibration(
    gate: CalibrationGate, confidence: float, child: Measurements, parent: Measurements | None
) -> GateResult:
    told, before = child.written, parent.written if parent else ()
    ours, theirs = (calibration_error([one[1] for one in all_], [one[2] for one in all_]) for all_ in (told, before))
    if ours is None or not math.isfinite(ours):
        return _failed("calibration", "no probe was answered in the model's own words", gate.maximum)
    if parent is not None and (theirs is None or [one.probe for one in told] != [one.probe for one in before]):
        found = f"the child answered {len(told)} written probes and the parent {len(before)}, expected the same exam"
        return _failed("calibration", found, gate.maximum)
    threshold = gate.maximum if theirs is None else min(gate.maximum, theirs + gate.max_rise)
    bounds = None if theirs is None else calibration_interval(told, before, confidence)
    sure = gate.evidence == "point" or bounds is None or bounds.high <= gate.max_rise + TOLERANCE
    needed = f"at most {threshold:.4f} allowed" + ("" if sure else f", and a rise of {gate.max_rise:g} ruled out")
    detail = f"error {ours:.4f} over {len(told)} answers{_against(theirs, bounds)}, {needed}"
    passed = ours <= threshold + TOLERANCE and sure
    return GateResult("calibration", passed, True, ours, threshold, theirs, len(told), detail, *_ends(bounds))


def _coherence(gate: CoherenceGate, child: Measurements, parent: Measurements | None) -> GateResult:
    """Whether the child still answers: first of all, because a model that fell apart moves every other figure."""
    if not child.masses:
        return _failed("coherence", "no probe is a forced choice (kind choice), so no mass can be read", gate.minimum)
    if parent is not None and len(parent.masses) != len(child.masses):
        found = f"{len(child.masses)} choices of the child and {len(parent.masses)} of the parent"
        return _failed("coherence", f"{found}, expected the same exam", gate.minimum)
    ours, before = mean(child.masses), mean(parent.masses) if parent else None
    if not 0 <= ours <= 1 + TOLERANCE:
        return _failed("coherence", f"the mass is {_shown(ours)}, expected 0 to 1", gate.minimum)
    threshold = gate.minimum if before is None else max(gate.minimum, gate.min_ratio * before)
    against = "" if before is None else f", the parent has {before:.4f}"
    n, passed = len(child.masses), ours >= threshold - TOLERANCE
    detail = f"{ours:.4f} of the mass on the options of {n} choices{against}, at least {threshold:.4f} needed"
    return GateResult("coherence", passed, True, ours, threshold, before, n, detail)


def _custom(name: str, results: Sequence[GateResult]) -> GateResult:
    found = [result for result in results if result.name == name]
    return found[0] if len(found) == 1 else _failed(name, "was not examined")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _against(before: float | None, bounds: Interval | None) -> str:
    if before is None or bounds is None:
        return ""
    return f", the parent has {before:.4f}; the difference lies in {bounds.low:+.4f} to {bounds.high:+.4f}"


def _ends(bounds: Interval | None) -> tuple[float | None, float | None]:
    return (bounds.low, bounds.high) if bounds else (None, None)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _finite(value: float | None) -> float | None:
    """Reports hold no NaN: strict JSON has none."""
    return value if value is not None and math.isfinite(value) else None


def _not_applicable(name: str, detail: str) -> GateResult:
    return GateResult(name, True, False, None, None, None, 0, detail)


def _failed(name: str, detail: str, threshold: float | None = None) -> GateResult:
    return GateResult(name, False, True, None, threshold, None, 0, detail)


Gate = Callable[[Exam, Answers, Answers | None], GateResult]
"""Of the exam, the child's answers, and the parent's; None for a genesis."""


def custom_gate(name: str) -> Gate:
    """Load an installed gate.

    Raises:
        ManifestError: it is not installed once, cannot be loaded, or is nothing that can be called.
    """
    gate = installed.load(installed.GATES, name, "gates.custom")
    if not callable(gate):
        raise ManifestError(f"{name!r} is {gate!r:.80}, expected a callable", where=f"gates.custom {name}")
    found: Gate = gate
    return found


def evaluate_custom_gates(names: Sequence[str], exam: Exam, child: Answers, parent: Answers | None) -> list[GateResult]:
    """What each of these gates says, under its own name.

    Raises:
        ManifestError: as ``custom_gate``.
        GateError: a gate failed, or returned what is no result. Nothing is decided then.
    """
    return [_judged(name, custom_gate(name), exam, child, parent) for name in names]


def _judged(name: str, gate: Gate, exam: Exam, child: Answers, parent: Answers | None) -> GateResult:
    """Run somebody else's code on the answers; whatever it does wrong, the gate does not pass."""
    where = f"gates.custom {name}"
    try:
        result: Any = gate(exam, child, parent)
    except Exception as error:
        raise GateError(f"the gate failed: {error!r}", where=where, remedy="mend the gate") from error
    if not isinstance(result, GateResult) or not isinstance(result.passed, bool):
        raise GateError(f"returned {result!r:.80}, expected a GateResult", where=where, remedy="mend the gate")
    try:
        json.dumps(asdict(result), allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"returned what no report can hold, {error}: {result!r:.200}"
        raise GateError(message, where=where, remedy="mend the gate") from error
    return replace(result, name=name)
