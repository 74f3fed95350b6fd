"""How a child stands on the probes of its ancestors, one ancestor at a time and over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ladder.gates.grouped import Groups, alone, grouped_interval
from ladder.gates.measure import Scores, mean
from ladder.gates.paired import WHOLE, Interval, Reach, paired_interval
from ladder.manifest.schema_gates import Gates, RecallGate

TOLERANCE = 1e-9
"""So that 0.95 >= 1.0 - 0.05 holds. Far below the share of one probe in any exam."""

_ANSWERED = (0.0, 1.0)

Parts = Mapping[str, Scores]
"""Scores by the ancestor who left the probes; none of them empty."""


@dataclass(frozen=True)
class Standing:
    """One ancestor's probes.

    Args:
        child: the child's accuracy (0 to 1).
        parent: the parent's; None for a genesis.
        origin: that of the ancestor itself, when it was examined; None where it is not known.
        n: how many probes.
        low: lower bound of the difference to the parent.
        high: upper bound.
        fallen: why recall does not pass for this ancestor alone; empty where it does.
    """

    child: float
    parent: float | None = None
    origin: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    fallen: str = ""


def stand(
    gates: Gates,
    ours: Parts,
    theirs: Parts | None,
    origins: Mapping[str, float],
    groups: Mapping[str, Groups] | None = None,
) -> dict[str, Standing]:
    """The child on each ancestor's probes; nothing where the two did not sit the same exam.

    An ancestor is forgotten where the child answers more than ``max_drop`` fewer than the parent and that is no chance:
    the upper bound of the difference is below 0. Each of k ancestors is judged at 1 - (1 - confidence) / k, so that
    chance finds one among all of them no more often than the confidence says (Bonferroni). It has slid too far where
    the child lies more than ``max_slide`` below what the ancestor itself answered: small drops add up.
    """
    if not ours or why_not(ours, theirs):
        return {}
    confidence = 1 - (1 - gates.confidence) / len(ours)
    bounds = {
        name: bounds_of({name: scores}, {name: theirs[name]} if theirs else None, confidence, groups)
        for name, scores in ours.items()
    }
    return {
        name: _standing(gates.recall, scores, theirs[name] if theirs else None, origins.get(name), bounds[name])
        for name, scores in ours.items()
    }


def overall(scores: Parts) -> float:
    """Mean over ancestors of their means: one with many probes does not drown the others."""
    return mean([mean(each) for each in scores.values()])


def bounds_of(
    ours: Parts, theirs: Parts | None, confidence: float, groups: Mapping[str, Groups] | None = None
) -> Interval | None:
    """Bounds of the difference to the parent; None where there is no parent.

    Where probes stand or fall together they are the wider of the bounds over probes and those over groups.
    """
    if theirs is None:
        return None
    differences = {name: _differences(scores, theirs[name]) for name, scores in ours.items()}
    reaches = [reach_of(scores, theirs[name]) for name, scores in ours.items()]
    by_probe = paired_interval([*differences.values()], confidence, reaches=reaches)
    together = {name: found for name, found in (groups or {}).items() if name in ours}
    if not together:
        return by_probe
    strata = [(each, together.get(name) or alone(len(each))) for name, each in differences.items()]
    return by_probe.widened(grouped_interval(strata, confidence))


def reach_of(ours: Scores, theirs: Scores) -> Reach:
    """What one more probe like these may lose and gain: an answer is right or wrong, a likelihood loses at most what
    the parent gave the text and gains at most what is missing to 1.

    A score that is neither 0 nor 1 is that of a likelihood. One that is may be either's, and counts as an answer, whose
    reach is the widest there is. By how much the scores did change plays no part.
    """
    if any(child in _ANSWERED and parent in _ANSWERED for child, parent in zip(ours, theirs, strict=True)):
        return WHOLE
    return Reach(max(theirs), 1 - min(theirs))


def why_not(ours: Parts, theirs: Parts | None) -> str:
    """Why scores cannot be compared; empty where they can. NaN is in no range."""
    for whose, scores in (("child", ours), ("parent", theirs or {})):
        strange = [score for each in scores.values() for score in each if not 0 <= score <= 1]
        if strange:
            return f"one of the {whose}'s figures is {strange[0]:.4g}, expected 0 to 1"
    if theirs is not None and _sizes(ours) != _sizes(theirs):
        return f"the child was asked {_sizes(ours)} and the parent {_sizes(theirs)}, expected the same exam"
    return ""


def _standing(
    gate: RecallGate, ours: Scores, theirs: Scores | None, origin: float | None, bounds: Interval | None
) -> Standing:
    now, fallen = mean(ours), ""
    if origin is not None and now < origin - gate.max_slide - TOLERANCE:
        fallen = f"slid too far: it had {origin:.4f} itself, the child has {now:.4f}"
    if theirs is None or bounds is None:
        return Standing(now, None, origin, len(ours), fallen=fallen)
    before = mean(theirs)
    if now < before - gate.max_drop - TOLERANCE and bounds.high < 0:
        fallen = f"was forgotten: the parent has {before:.4f}, the child {now:.4f}"
    return Standing(now, before, origin, len(ours), bounds.low, bounds.high, fallen)


def _differences(ours: Scores, theirs: Scores) -> list[float]:
    return [child - parent for child, parent in zip(ours, theirs, strict=True)]


def _sizes(scores: Parts) -> str:
    return ", ".join(f"{len(each)} probes of {name}" for name, each in sorted(scores.items())) or "nothing"
