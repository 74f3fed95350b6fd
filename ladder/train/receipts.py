"""What each source of each teacher was worth to a student: how much it taught, with which weight, and what it harmed.

A source is what is weighed and throttled apart: a teacher, a group of its documents, or a file that it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from math import isfinite
from typing import Any

MOST = 50
"""Stretches of a run that are kept of each source."""


@dataclass(frozen=True)
class Receipt:
    """One source in one step, or in several: sums, and the state after the last of them.

    Args:
        teacher: number of the teacher that it belongs to, from 1.
        tokens: trained tokens, whoever taught them.
        taught: of these, the tokens to whose target it contributed.
        weight: sum of its weights (0 to 1 each) over the tokens that it taught.
        harm: sum over ``sampled`` of its tokens of ln p(gold) of the target without it less that with it, in nats:
            above 0 it harms, below 0 it helps.
        sampled: tokens on which that was measured.
        throttle: what its weight is multiplied by after these steps, 0 to 1.
        error: by how much more gold labels surprise its teacher than the mixture of all, in nats, as tracked after
            these steps (``ladder.distill.fusion``); None where nothing was tracked.
    """

    teacher: int
    tokens: int = 0
    taught: int = 0
    weight: float = 0.0
    harm: float = 0.0
    sampled: int = 0
    throttle: float = 1.0
    error: float | None = None

    def __add__(self, later: Receipt) -> Receipt:
        """Both together, in their order."""
        return replace(
            later,
            tokens=self.tokens + later.tokens,
            taught=self.taught + later.taught,
            weight=self.weight + later.weight,
            harm=self.harm + later.harm,
            sampled=self.sampled + later.sampled,
            error=self.error if later.error is None else later.error,
        )

    def figures(self) -> dict[str, float]:
        """``taught``, its share of the trained tokens; ``weight`` and ``harm``, means; ``throttle``, ``error``.

        What was not measured, or is no finite number, is left out: reports hold none.
        """
        means = {
            "taught": self.taught / self.tokens if self.tokens else 0.0,
            "weight": self.weight / self.taught if self.taught else None,
            "harm": self.harm / self.sampled if self.sampled else None,
            "throttle": self.throttle,
            "error": self.error,
        }
        return {name: value for name, value in means.items() if value is not None and isfinite(value)}


@dataclass
class Receipts:
    """The receipts of all steps of a run, by source.

    Steps are added up over stretches of equal length; once there are more than ``MOST`` of these, two and two become
    one. So what is kept depends on the steps alone, and not on where a run was cut off.

    Args:
        width: steps of a stretch, a power of two.
        stretches: of each source, by the number of the stretch (step // width).
    """

    width: int = 1
    stretches: dict[str, dict[int, Receipt]] = field(default_factory=dict)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> Receipts:
        """What a run noted under ``receipts``; nothing before its first checkpoint, and of a run from before there were
        receipts."""
        noted = notes.get("receipts", {})
        stretches = {
            name: {int(place): Receipt(*one) for place, one in kept.items()}
            for name, kept in noted.get("stretches", {}).items()
        }
        return cls(noted.get("width", 1), stretches)

    def to_notes(self) -> dict[str, Any]:
        """What ``of_notes`` reads; plain JSON values, without names: a run may have many sources, and notes are written
        at each checkpoint."""
        stretches = {
            name: {str(place): list(astuple(one)) for place, one in kept.items()}
            for name, kept in self.stretches.items()
        }
        return {"width": self.width, "stretches": stretches}

    def see(self, step: int, receipts: Mapping[str, Receipt]) -> None:
        """Add one step."""
        for name, receipt in receipts.items():
            _add(self.stretches.setdefault(name, {}), step // self.width, receipt)
        while any(max(kept) >= MOST for kept in self.stretches.values()):
            self.width *= 2
            for name, kept in self.stretches.items():
                halves: dict[int, Receipt] = {}
                for place, receipt in kept.items():
                    _add(halves, place // 2, receipt)
                self.stretches[name] = halves

    def summary(self) -> dict[str, dict[str, Any]]:
        """For the report, by source: ``teacher``, the figures of the whole run (see ``Receipt.figures``), and
        ``over_time``, a list of at most ``MOST`` of the same with the first ``step`` of each."""
        return {
            name: {
                "teacher": next(iter(kept.values())).teacher,
                **_sum(kept.values()).figures(),
                "over_time": [
                    {"step": place * self.width, **receipt.figures()} for place, receipt in sorted(kept.items())
                ],
            }
            for name, kept in self.stretches.items()
        }


def _add(kept: dict[int, Receipt], place: int, receipt: Receipt) -> None:
    kept[place] = kept[place] + receipt if place in kept else receipt


def _sum(receipts: Iterable[Receipt]) -> Receipt:
    first, *others = receipts
    for other in others:
        first = first + other
    return first
