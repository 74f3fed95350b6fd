"""Is the model full? What a family's newest examinations say of the space that is left for a lesson.

A model with space learns a lesson beside what it knows. A full one pays for it: with old answers, or by not learning
it. So the measure is what remains of a lesson when what it cost is taken off, in answers, over the last children that
were examined. It sees what happened and not why: a recipe that rehearses too little loses old answers in an empty
model, too, so children that rehearsed nothing say nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.data import REPORT, kept_document
from ladder.registry import Generation, Registry, Verdict

LAST, FEWEST = 3, 2
"""Children that are looked at, the newest ones, and fewest from which anything is said."""
ANSWERS = 20
"""Fewest new answers that they were asked for."""
FULL = 0.5
"""What remains of a lesson below which a person is told. ``docs/capacity.md`` has the families that it was tried on."""


@dataclass(frozen=True)
class Ranks:
    """How many ranks the products of an adapter use, by the entropy of their singular values, and how many it has."""

    used: float
    of: int


@dataclass(frozen=True)
class Examined:
    """One child beside its parent, in answers.

    Args:
        asked: new answers that its parent did not know.
        learned: of them that the child knows, less those that only its parent knew.
        lost: old answers that the parent knew and the child does not, less those that only the child knows; each
            ancestor's probes stand for a lesson of as many answers.
        ranks: of its adapter; None where it has no LoRA or DoRA, or that is not kept.
    """

    ref: str
    asked: float
    learned: float
    lost: float
    ranks: Ranks | None = None


@dataclass(frozen=True)
class Space:
    """What is left.

    Args:
        free: share of a lesson that remains when what it cost is taken off, 0 to 1.
        learned: share of the new answers; ``lost`` old answers as a share of the new ones, below 0 where more came
            back.
        children: whom this is said of, oldest first.
        ranks: of the newest child's adapter.
    """

    free: float
    learned: float
    lost: float
    children: tuple[str, ...]
    ranks: Ranks | None = None

    @property
    def full(self) -> bool:
        return self.free < FULL

    def sentence(self) -> str:
        """With the figures, for people."""
        cost = f"and lost old ones as many as {self.lost:.0%} of them" if self.lost > 0 else "and lost no old ones"
        told = f"{self.children[0]} to {self.children[-1]} learned {self.learned:.0%} of the new answers {cost}"
        used = f"; the last adapter used {self.ranks.used:.1f} of {self.ranks.of} ranks" if self.ranks else ""
        return f"{told}, so {self.free:.0%} of a lesson remains{used}"

    def warning(self) -> list[str]:
        """Where it is full."""
        if not self.full:
            return []
        way = "raise student.adapter.r" if self.ranks else "begin a family with a larger model"
        return [
            f"student: the model may be full: {self.sentence()}. Where more steps and more dreams do not help, {way} "
            "(docs/capacity.md)"
        ]


def space_of(examined: Sequence[Examined]) -> Space | None:
    """What the newest of them say together; None where they are too few, or were asked too little."""
    newest = examined[-LAST:]
    asked = sum(one.asked for one in newest)
    if len(newest) < FEWEST or asked < ANSWERS:
        return None
    learned, lost = (sum(values) / asked for values in zip(*((one.learned, one.lost) for one in newest), strict=True))
    free = min(1.0, max(0.0, learned - lost))
    return Space(free, learned, lost, tuple(one.ref for one in newest), newest[-1].ranks)


def space_after(registry: Registry, line: Sequence[Generation]) -> Space | None:
    """What is left for a child of the last of this line; None where it is not known.

    Args:
        line: the parent's, oldest first, the parent last. Its newest rejected child counts as well: that a model is
            full shows in who is rejected.
    """
    if not line:
        return None
    parent = line[-1]
    attempts = [one for one in registry.generations(parent.name.family) if one.parent == parent.digest]
    rejected = [one for one in attempts if one.verdict is Verdict.REJECTED]
    return space_with(registry, [*line, *sorted(rejected, key=lambda one: one.version)[-1:]])


def space_with(registry: Registry, line: Sequence[Generation]) -> Space | None:
    """What the last of these generations say, by what is stored of them."""
    # One more, because a first generation was not asked for anything new.
    found = [examined_of(one.ref, registry.sidecars(one)) for one in line[-LAST - 1 :]]
    return space_of([one for one in found if one is not None])


def examined_of(ref: str, sidecars: Path) -> Examined | None:
    """What is stored of a child; None where it has no parent, was not asked for anything new, or rehearsed nothing.

    Args:
        sidecars: its ``ladder`` folder; an adapter lies beside it where its weights are kept.
    """
    path = sidecars / REPORT
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results = {one["name"]: one for one in report.get("gates", {}).get("results", ())}
    own = results.get("generalize", {})
    known, value, n = own.get("parent_value"), own.get("value"), own.get("n") or 0
    if known is None or value is None or not n or not _rehearsed(kept_document(sidecars)["manifest"] or {}):
        return None
    kept = report["gates"].get("per_ancestor", {}).values()
    lost = sum(one["n"] * (one["parent"] - one["child"]) for one in kept)
    return Examined(ref, n * (1 - known), n * (value - known), lost, _ranks(sidecars.parent / "adapter"))


def _ranks(adapter: Path) -> Ranks | None:
    if not adapter.is_dir():
        return None
    # Only here, because whoever looks at a family without adapters waits for no torch.
    from ladder.models import rank_used

    found = rank_used(adapter)
    return Ranks(*found) if found else None


def _rehearsed(manifest: Mapping[str, Any]) -> bool:
    """Whether something old was read beside what is new."""
    stabilizers = manifest.get("stabilizers", {})
    return bool(stabilizers.get("replay_buffer") or stabilizers.get("dreams"))
