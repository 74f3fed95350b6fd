"""A gate of ``gates.metrics``: one figure held against thresholds in the words of ``mlflow.models.MetricThreshold``.

It fails closed: a figure that is missing or not finite does not pass, nor does one whose task says that it is better
the other way round.
"""

from __future__ import annotations

from math import isfinite

from ladder.gates.standing import TOLERANCE
from ladder.gates.suite_results import Figure
from ladder.gates.verdict import GateResult
from ladder.manifest.schema_gates import MetricGate

_ANY_GAIN = 10 * TOLERANCE
"""What counts as better than a parent's 0, of which no share can be asked."""


def hold(gate: MetricGate, child: Figure | None, parent: Figure | None) -> GateResult:
    """The gate's result.

    Args:
        child: the child's figure; None where it was not measured, which fails.
        parent: the parent's; None without a parent, which fails where a change is asked for.
    """
    before = parent.value if parent is not None and isfinite(parent.value) else None
    if child is None or (problem := _why_not(gate, child, parent)):
        said = "was not measured" if child is None else problem
        return GateResult(gate.name, False, True, None, gate.threshold, before, 0, f"{_title(gate)} {said}")
    pick, side = (max, "at least") if gate.greater_is_better else (min, "at most")
    threshold = pick(_needs(gate, before))
    ahead = child.value - threshold if gate.greater_is_better else threshold - child.value
    against = "" if before is None else f", the parent has {before:.4f}"
    detail = f"{_title(gate)} {_shown(child)}{against}, {side} {threshold:.4f} needed"
    return GateResult(gate.name, ahead >= -TOLERANCE, True, child.value, threshold, before, child.n, detail)


def _why_not(gate: MetricGate, child: Figure, parent: Figure | None) -> str:
    """Why the figures cannot be held against anything; empty where they can."""
    if not isfinite(child.value):
        return f"has no figure of the child: {child.remark or child.value}"
    if child.greater_is_better not in (None, gate.greater_is_better):
        said = "greater" if child.greater_is_better else "less"
        return f"is better where it is {said}, as the task says; greater_is_better says the opposite"
    if gate.min_absolute_change is None and gate.min_relative_change is None:
        return ""
    if parent is None:
        return "has no figure of a parent to change against"
    return "" if isfinite(parent.value) else f"has no figure of the parent: {parent.remark or parent.value}"


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


def _shown(figure: Figure) -> str:
    error = "" if figure.stderr is None else f" ± {figure.stderr:.4f}"
    return f"{figure.value:.4f}{error} over {figure.n} documents"
