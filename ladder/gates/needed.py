"""What a gate that failed would have taken: how far its figure must move, how many more right answers pass it, and how
many probes would put the difference that was seen beyond chance. By the decision's own code, from a report alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import isclose

from pydantic import ValidationError

from ladder.gates.decision import GateReport, GateResult, is_drop_ruled_out, is_gain_beyond_chance
from ladder.gates.measurements import OWN, Retention, Scores, bounds_of, mean, overall, retention_of
from ladder.laws import TOLERANCE
from ladder.manifest import Gates

_SPLITS = 400
"""Splits of lost and gained that are tried before a pairing counts as unknown."""
_TIMES = 64
"""How many times its probes an exam is thought to have before no number of them is named."""


@dataclass(frozen=True)
class Needed:
    """What a gate that failed would have taken.

    Args:
        by: how far the figure must move to reach its threshold, in its own unit, with its sign; 0 where it is there and
            evidence is missing; None where nothing was measured.
        answers: further right answers that pass the gate, by the ancestor whose probes they answer (``own``: the
            child's own); empty where they cannot be counted, or where even all of them are too few.
        probes: how many probes pass it with the same shares of lost and gained answers; None where the threshold itself
            is not reached, or where no such number does.
    """

    by: float | None = None
    answers: Mapping[str, int] = field(default_factory=dict)
    probes: int | None = None


def needed(report: GateReport, gate: GateResult, grouped: Collection[str] = ()) -> Needed:
    """What this gate of a report would have taken. Likelihoods (``nll``) and probes in groups are no answers that could
    be counted: of these it is said how far the figure must move.

    Args:
        grouped: who left probes that stand or fall together, by name, and ``own``; no report says that.
    """
    if gate.value is None or gate.threshold is None:
        return Needed()
    short = Needed(by=_lacking(report, gate, gate.value, gate.threshold))
    if gate.name not in ("recall", "generalize") or (
        {OWN} if gate.name == "generalize" else {*report.per_ancestor}
    ).intersection(grouped):
        return short
    try:
        settings = Gates.model_validate(dict(report.settings))
    except ValidationError:  # Another version of ladder wrote them.
        return short
    if gate.name == "generalize":
        return _of_generalize(settings, gate, gate.threshold, short)
    return _of_recall(settings, report.per_ancestor, gate.threshold, short)


def _lacking(report: GateReport, gate: GateResult, value: float, threshold: float) -> float:
    """What the figure lacks, or has too much of (below 0); 0 where the threshold is kept."""
    rises = {"recall": True, "generalize": True, "tone": False, "laws": False, "calibration": False}
    rises |= {one["name"]: one.get("greater_is_better", True) for one in report.settings.get("metrics", ())}
    lacks = threshold - value
    if abs(lacks) <= TOLERANCE or gate.name not in rises:
        return 0.0 if gate.name in rises else lacks
    return max(0.0, lacks) if rises[gate.name] else min(0.0, lacks)


@dataclass(frozen=True)
class _Part:
    """The probes that one generation left, counted by what became of each from parent to child."""

    kept: int
    lost: int
    gained: int
    missed: int

    @property
    def room(self) -> int:
        """Answers that could be right and are not."""
        return self.lost + self.missed

    @property
    def size(self) -> int:
        return self.kept + self.lost + self.gained + self.missed

    @property
    def ours(self) -> Scores:
        """The child's scores, probe by probe."""
        return (1.0,) * self.kept + (0.0,) * self.lost + (1.0,) * self.gained + (0.0,) * self.missed

    @property
    def theirs(self) -> Scores:
        """The parent's."""
        return (1.0,) * (self.kept + self.lost) + (0.0,) * (self.gained + self.missed)

    def with_right(self, more: int) -> _Part:
        """With so many more right answers, those first that were lost."""
        again = min(more, self.lost)
        new = more - again
        return _Part(self.kept + again, self.lost - again, self.gained + new, self.missed - new)

    def times(self, factor: int) -> _Part:
        """So many times the probes, with the same shares."""
        return _Part(factor * self.kept, factor * self.lost, factor * self.gained, factor * self.missed)


def _part(figures: Retention, confidence: float) -> _Part | None:
    """What became of each probe, found again from the figures and their bounds, whose draws are always the same; None
    where scores are no counts, where probes stand in groups, or where there was no parent."""
    child, parent, n, low, high = figures.child, figures.parent, figures.n, figures.low, figures.high
    if parent is None or low is None or high is None or not n:
        return None
    ours, theirs = round(child * n), round(parent * n)
    if not (isclose(ours / n, child, abs_tol=1e-9) and isclose(theirs / n, parent, abs_tol=1e-9)):
        return None
    fewest, most = max(0, theirs - ours), min(theirs, n - ours)
    for lost in range(fewest, min(most, fewest + _SPLITS) + 1):
        found = _Part(theirs - lost, lost, ours - theirs + lost, n - ours - lost)
        bounds = bounds_of({OWN: found.ours}, {OWN: found.theirs}, confidence)
        if bounds and isclose(bounds.low, low, abs_tol=1e-9) and isclose(bounds.high, high, abs_tol=1e-9):
            return found
    return None


def _of_generalize(gates: Gates, gate: GateResult, threshold: float, short: Needed) -> Needed:
    figures = Retention(gate.value or 0.0, gate.parent_value, None, gate.n, gate.low, gate.high)
    part, rules = _part(figures, gates.confidence), gates.generalize
    if part is None:
        return short

    def passes(one: _Part) -> bool:
        reached = mean(one.ours)
        bounds = bounds_of({OWN: one.ours}, {OWN: one.theirs}, gates.confidence)
        sure = reached >= rules.ceiling - TOLERANCE or is_gain_beyond_chance(rules, bounds)
        return reached >= threshold - TOLERANCE and sure

    more = bisect_left(range(part.room + 1), True, key=lambda count: passes(part.with_right(count)))
    probes = None if short.by else _probes(part.size, lambda times: passes(part.times(times)))
    return replace(short, answers={OWN: more} if more <= part.room else {}, probes=probes)


def _of_recall(gates: Gates, kept: Mapping[str, Retention], threshold: float, short: Needed) -> Needed:
    each = 1 - (1 - gates.confidence) / max(1, len(kept))
    parts = {name: part for name, one in kept.items() if (part := _part(one, each)) is not None}
    if not parts or len(parts) < len(kept):
        return short
    origins = {name: one.origin for name, one in kept.items() if one.origin is not None}

    def passes(these: Mapping[str, _Part]) -> bool:
        ours, theirs = ({name: one.ours for name, one in these.items()}, {n: one.theirs for n, one in these.items()})
        fallen = any(one.fallen for one in retention_of(gates, ours, theirs, origins).values())
        sure = is_drop_ruled_out(gates.recall, bounds_of(ours, theirs, gates.confidence))
        return overall(ours) >= threshold - TOLERANCE and sure and not fallen

    def fewest(name: str) -> int:
        """Answers until this ancestor is neither forgotten nor slid away from, whatever the others do."""

        def stands(more: int) -> bool:
            now = parts | {name: parts[name].with_right(more)}
            ours, theirs = ({n: one.ours for n, one in now.items()}, {n: one.theirs for n, one in now.items()})
            return not retention_of(gates, ours, theirs, origins)[name].fallen

        return bisect_left(range(parts[name].room + 1), True, key=stands)

    given = {name: fewest(name) for name in parts}
    if any(count > parts[name].room for name, count in given.items()):
        return short
    # An answer weighs most where the fewest were asked.
    order = [name for name in sorted(parts, key=lambda name: parts[name].size) for _ in range(parts[name].room)]
    for name, count in given.items():
        for _ in range(count):
            order.remove(name)

    def after(more: int) -> dict[str, _Part]:
        return {name: part.with_right(given[name] + order[:more].count(name)) for name, part in parts.items()}

    more = bisect_left(range(len(order) + 1), True, key=lambda count: passes(after(count)))
    counts = {name: given[name] + order[:more].count(name) for name in parts} if more <= len(order) else {}
    size = sum(part.size for part in parts.values())
    scaled = None if short.by else _probes(size, lambda times: passes({n: p.times(times) for n, p in parts.items()}))
    return replace(short, answers={name: count for name, count in counts.items() if count}, probes=scaled)


def _probes(size: int, passes: Callable[[int], bool]) -> int | None:
    """The least multiple of so many probes that passes, by doubling and bisection."""
    most = 2
    while not passes(most):
        most *= 2
        if most > _TIMES:
            return None
    return size * (1 + bisect_left(range(1, most + 1), True, key=passes))
