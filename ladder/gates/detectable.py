"""How many answers decide, by the decision's own code: before an exam is held its minimum detectable effect, and after
a verdict what a gate that failed would have taken."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose

from pydantic import ValidationError

from ladder.exam import Probe
from ladder.gates.decision import GateReport, GateResult, is_drop_ruled_out, is_gain_beyond_chance
from ladder.gates.measurements import OWN, Retention, Scores, bounds_of, mean, overall, retention_of
from ladder.laws import TOLERANCE
from ladder.manifest import Gates


@dataclass(frozen=True)
class Fewest:
    """How many answers of one part of the exam decide.

    Args:
        probes: how many are asked, 1 or more.
        answers: from how many changed answers on, all of them to one side; None where not even all of them are enough.
    """

    probes: int
    answers: int | None


@dataclass(frozen=True)
class Detectable:
    """What an exam can tell apart. Likelihoods (``nll``) are no answers that could be counted, and of probes that stand
    or fall together the number alone decides nothing: of a part that holds one of these it is not said how many answers
    decide. One that holds answers besides likelihoods may still be too short.

    Args:
        gained: answers that the child must gain on its own probes below the ceiling; None where there is no parent.
        forgotten: answers lost of an ancestor's probes that make recall fail for it alone, where the parent had them.
        unchanged_passes: whether recall's evidence passes a child that answers its ancestors' probes as its parent
            does; None where there are none, or where the parent's likelihoods or the groups decide that.
    """

    gained: Fewest | None = None
    forgotten: Mapping[str, Fewest] = field(default_factory=dict)
    unchanged_passes: bool | None = None


def detectable(gates: Gates, own: Sequence[Probe], recall: Mapping[str, Sequence[Probe]]) -> Detectable:
    """What an exam can tell apart, for a child that has a parent.

    Args:
        own: the child's probes.
        recall: those that each ancestor left; of one that left none nothing is asked.
    """
    asked = {name: probes for name, probes in recall.items() if probes}
    counted = {name: len(probes) for name, probes in asked.items() if _are_counted(probes)}
    sizes = [len(probes) for probes in asked.values() if _holds_answers(probes)]
    return Detectable(
        _gained(gates, own),
        {name: fewest_lost(gates, size, len(asked)) for name, size in counted.items()},
        passes_unchanged(gates, sizes) if asked and len(sizes) == len(asked) else None,
    )


def _gained(gates: Gates, own: Sequence[Probe]) -> Fewest | None:
    if not own or not _holds_answers(own):
        return None
    # As answers all of them could gain more than likelihoods can: where that is not enough, nothing is.
    found = fewest_gained(gates, len(own))
    return found if _are_counted(own) or found.answers is None else None


def fewest_gained(gates: Gates, probes: int) -> Fewest:
    """How many own answers a child must gain and lose none, so that generalize passes below the ceiling."""
    before = _scores(0, probes)

    def is_enough(gained: int) -> bool:
        bounds = bounds_of({"own": _scores(gained, probes)}, {"own": before}, gates.confidence)
        reached = gained / probes >= gates.generalize.min_gain - TOLERANCE
        return reached and is_gain_beyond_chance(gates.generalize, bounds)

    return Fewest(probes, _first(is_enough, probes))


def fewest_lost(gates: Gates, probes: int, ancestors: int = 1) -> Fewest:
    """How many answers of one of some ancestors a child must lose and gain none, so that this one is forgotten.

    Args:
        probes: those that it left.
        ancestors: how many left any, itself included; chance has as many tries.
    """
    others = {str(number): _scores(1, 1) for number in range(1, ancestors)}
    before = {"it": _scores(probes, probes)} | others

    def is_forgotten(lost: int) -> bool:
        after = {"it": _scores(probes - lost, probes)} | others
        return bool(retention_of(gates, after, before, {})["it"].fallen)

    return Fewest(probes, _first(is_forgotten, probes))


def passes_unchanged(gates: Gates, sizes: Sequence[int]) -> bool:
    """Whether recall's evidence passes a child that answers as its parent does.

    Args:
        sizes: how many probes each ancestor left.
    """
    same = {str(number): _scores(probes, probes) for number, probes in enumerate(sizes)}
    return is_drop_ruled_out(gates.recall, bounds_of(same, same, gates.confidence))


def warnings_of(gates: Gates, found: Detectable) -> list[str]:
    """Where the exam is too short for a child to pass as one would expect it to."""
    warnings = []
    if found.gained and found.gained.answers is None:
        warnings.append(
            f"gates.generalize.evidence: no gain on {found.gained.probes} own probes is beyond chance, so only a child "
            f"that reaches the ceiling of {gates.generalize.ceiling:g} can pass; ask more probes"
        )
    if found.unchanged_passes is False:
        warnings.append(
            "gates.recall.evidence: the ancestors left too few probes to rule out a drop of "
            f"{gates.recall.max_drop:g}, so a child that loses no answer is rejected unless it gains some; use point, "
            "or raise max_drop"
        )
    return warnings


def _are_counted(probes: Sequence[Probe]) -> bool:
    return all(probe.kind != "nll" and not probe.group for probe in probes)


def _holds_answers(probes: Sequence[Probe]) -> bool:
    """Whether any can be lost or gained wholly, and each stands by itself; likelihoods reach as far as the parent's
    scores say, which nobody knows beforehand."""
    return any(probe.kind != "nll" for probe in probes) and not any(probe.group for probe in probes)


def _scores(right: int, probes: int) -> Scores:
    return (1.0,) * right + (0.0,) * (probes - right)


def _first(is_enough: Callable[[int], bool], most: int) -> int | None:
    """The least number from 0 to ``most`` that is enough, by bisection; None where ``most`` is not."""
    found = bisect_left(range(most + 1), True, key=is_enough)
    return found if found <= most else None


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
