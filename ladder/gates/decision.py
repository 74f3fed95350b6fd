"""The decision: four gates and those of ``gates.metrics``, each a figure held against a threshold. All must pass.

Recall asks whether anything was forgotten, generalize whether the child is really better. With ``evidence: point`` of a
gate the figures themselves are compared; with ``interval`` the comparison must also hold at the lower bound of the
difference to the parent on the same probes: recall is then a test of non-inferiority by ``max_drop``, generalize one of
superiority. ``docs/gates.md`` says how often each is wrong.

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
from collections.abc import Mapping, Sequence

from ladder.gates.law import LawResult, sampled_sentence
from ladder.gates.measure import OWN, Measurements, mean
from ladder.gates.paired import Interval
from ladder.gates.standing import TOLERANCE, Standing, bounds_of, overall, stand, why_not
from ladder.gates.suite_results import Figure
from ladder.gates.thresholds import hold
from ladder.gates.verdict import GateReport, GateResult
from ladder.manifest.schema_gates import Gates, GeneralizeGate, RecallGate, ToneGate


def decide(
    gates: Gates,
    child: Measurements,
    parent: Measurements | None,
    laws: Sequence[LawResult] | None,
    origins: Mapping[str, float] | None = None,
) -> GateReport:
    """Hold a child against its parent and the manifest's thresholds.

    Args:
        gates: the thresholds.
        child: figures of the child.
        parent: figures of the parent on the same exam; None for a genesis.
        laws: what became of each law; None where the laws were not examined, which fails.
        origins: accuracy (0 to 1) of each ancestor on its own probes when it was examined itself, where that is known.
    """
    standings = stand(gates, child.recall, parent.recall if parent else None, origins or {}, child.groups)
    results = (
        _recall(gates, child, parent, standings),
        _generalize(gates, child, parent),
        _tone(gates.tone, child, parent),
        _laws(laws),
        *(hold(gate, child.suites.get(gate.name), _of(parent, gate.name)) for gate in gates.metrics),
    )
    broken = tuple(violation for law in laws or () for violation in law.found.violations)
    return GateReport(results, broken, gates.model_dump(mode="json"), standings, tuple(laws or ()))


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


def _of(parent: Measurements | None, gate: str) -> Figure | None:
    return parent.suites.get(gate) if parent else None


def _recall(
    gates: Gates, child: Measurements, parent: Measurements | None, standings: Mapping[str, Standing]
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
    fallen = [f"{name} {one.fallen}" for name, one in standings.items() if one.fallen]
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


def _tone(gate: ToneGate, child: Measurements, parent: Measurements | None) -> GateResult:
    if gate.reference == "none":
        return _not_applicable("tone", "no reference voice")
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
