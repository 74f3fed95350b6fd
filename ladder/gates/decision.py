"""The decision: four gates, each a figure held against a threshold. All four must pass.

A gate fails closed: a figure that is missing, not finite, out of range, or measured on other probes than the parent's
does not pass. These are the only ways to pass without a figure, and each is printed as a remark of its gate:

- recall, for a genesis: it has no ancestors, so there is nothing to forget;
- recall, for a child whose ancestors left no probes, while ``recall.minimum`` is 0;
- generalize, without probes, where the manifest asks for nothing: ``minimum`` is 0 and there is either no parent to
  beat or ``min_gain`` is -1;
- tone, while ``tone.reference`` is ``none``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ladder.gates.laws import Violation
from ladder.gates.measure import Measurements
from ladder.gates.verdict import GateReport, GateResult
from ladder.manifest.schema import Gates, GeneralizeGate, RecallGate, ToneGate

_TOLERANCE = 1e-9
"""So that 0.95 >= 1.0 - 0.05 holds. Far below the share of one probe in any exam."""


class _Figure(NamedTuple):
    """A figure between 0 and 1, None where it is missing, and how many probes or answers it stands on."""

    value: float | None
    n: int


def decide(
    gates: Gates, child: Measurements, parent: Measurements | None, violations: Sequence[Violation] | None
) -> GateReport:
    """Hold a child against its parent and the manifest's thresholds.

    Args:
        gates: the thresholds.
        child: figures of the child.
        parent: figures of the parent on the same exam; None for a genesis.
        violations: every broken law; None where the laws were not examined, which fails.
    """
    results = (
        _recall(gates.recall, child, parent),
        _generalize(gates.generalize, child, parent),
        _tone(gates.tone, child, parent),
        _laws(violations),
    )
    per_ancestor = {name: value for name, value in child.recall_by.items() if math.isfinite(value)}
    return GateReport(results, tuple(violations or ()), gates.model_dump(mode="json"), per_ancestor)


def _recall(gate: RecallGate, child: Measurements, parent: Measurements | None) -> GateResult:
    ours = _Figure(child.recall, child.recall_n)
    if parent is None:
        if ours == _NOTHING:
            return _not_applicable("recall", "a genesis has no ancestors, so there is nothing to forget")
        return _accuracy("recall", ours, None, lambda _: gate.minimum)
    theirs = _Figure(parent.recall, parent.recall_n)
    if ours == theirs == _NOTHING:
        if gate.minimum == 0:
            return _not_applicable("recall", "no ancestor left any probes, so forgetting was not measured")
        return _failed("recall", "no ancestor left any probes, and gates.recall.minimum asks for a figure")
    return _accuracy("recall", ours, theirs, lambda before: max(gate.minimum, before - gate.max_drop))


def _generalize(gate: GeneralizeGate, child: Measurements, parent: Measurements | None) -> GateResult:
    ours = _Figure(child.generalize, child.generalize_n)
    if ours == _NOTHING:
        if gate.minimum == 0 and (parent is None or gate.min_gain == -1):
            return _not_applicable("generalize", "no probes, and the manifest asks for nothing")
        return _failed("generalize", "no probes: data.probes must hold questions that the child has not seen")
    if parent is None:
        return _accuracy("generalize", ours, None, lambda _: gate.minimum)
    theirs = _Figure(parent.generalize, parent.generalize_n)
    return _accuracy(
        "generalize", ours, theirs, lambda before: max(gate.minimum, min(before + gate.min_gain, gate.ceiling))
    )


def _tone(gate: ToneGate, child: Measurements, parent: Measurements | None) -> GateResult:
    if gate.reference == "none":
        return _not_applicable("tone", "no reference voice")
    before, drift = parent.tone_drift if parent else None, child.tone_drift
    problem = _problem(_Figure(drift, child.tone_n), None)
    if problem or drift is None:
        return _failed("tone", "; ".join([problem, *child.remarks]), gate.max_drift)
    voice = "parent" if gate.reference == "parent" else "reference"
    detail = f"{drift:.4f} from the {voice} over {child.tone_n} answers ({gate.measure}), at most {gate.max_drift:.4f}"
    passed = drift <= gate.max_drift + _TOLERANCE
    return GateResult("tone", passed, True, drift, gate.max_drift, _finite(before), child.tone_n, detail)


def _laws(violations: Sequence[Violation] | None) -> GateResult:
    if violations is None:
        return _failed("laws", "the laws were not examined", 0.0)
    detail = f"{len(violations)} violation{'' if len(violations) == 1 else 's'}"
    if violations:
        first = violations[0]
        detail += f"; {first.law} at {first.where}: {first.found}"
    return GateResult("laws", not violations, True, float(len(violations)), 0.0, None, len(violations), detail)


def _accuracy(name: str, ours: _Figure, theirs: _Figure | None, needed: Callable[[float], float]) -> GateResult:
    """Hold an accuracy against what is ``needed``, which depends on the parent's (0 without a parent)."""
    problem = _problem(ours, theirs)
    if problem or ours.value is None:
        return _failed(name, problem)
    before = theirs.value if theirs else None
    threshold = needed(before or 0.0)
    against = "" if before is None else f", the parent has {before:.4f}"
    detail = f"{ours.value:.4f} over {ours.n} probes{against}, at least {threshold:.4f} needed"
    passed = ours.value >= threshold - _TOLERANCE
    return GateResult(name, passed, True, ours.value, threshold, before, ours.n, detail)


def _problem(ours: _Figure, theirs: _Figure | None) -> str:
    """Why figures cannot be decided on; empty where they can. NaN is in no range."""
    if ours.value is None or ours.n <= 0:
        return f"the child's figure is missing: found {_shown(ours.value)} over {ours.n}"
    if not 0 <= ours.value <= 1:
        return f"the child's figure is {_shown(ours.value)}, expected 0 to 1"
    if theirs is None:
        return ""
    if theirs.value is None or not 0 <= theirs.value <= 1:
        return f"the parent's figure is {_shown(theirs.value)}, expected 0 to 1"
    if theirs.n != ours.n:
        return f"the child was asked {ours.n} probes and the parent {theirs.n}, expected the same exam"
    return ""


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _finite(value: float | None) -> float | None:
    """Reports hold no NaN: strict JSON has none."""
    return value if value is not None and math.isfinite(value) else None


def _not_applicable(name: str, detail: str) -> GateResult:
    return GateResult(name, True, False, None, None, None, 0, detail)


def _failed(name: str, detail: str, threshold: float | None = None) -> GateResult:
    return GateResult(name, False, True, None, threshold, None, 0, detail)


_NOTHING = _Figure(None, 0)
