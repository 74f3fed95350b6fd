"""The minimum detectable effect of an exam, before it is held: how many answers decide, by the decision's own code."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ladder.exam import Probe
from ladder.gates.decision import is_drop_ruled_out, is_gain_beyond_chance
from ladder.gates.measurements import Scores, bounds_of, retention_of
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
