"""Which of its ancestors' lessons a child rehearses how often, and who dreams of each: decided by what exams measured.

A lesson is what one ancestor was taught, as far as its probes ask for it. Its own exam says what it knew of it, and the
exam of each later generation what was left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ladder.data import REPORT, leaves_rows
from ladder.manifest import FIRST_OTHER, Dreams, Manifest, Rehearsal, others

PARENT = 1
"""The parent's number among the teachers."""
_SAME = 1e-9

Standings = Mapping[str, Mapping[str, float]]
"""Of each lesson, by the ancestor that left it, the accuracy (0 to 1) of each generation that was asked for it."""


@dataclass(frozen=True)
class Rehearsed:
    """One lesson of a plan.

    Args:
        lesson: the ancestor whose it is.
        had: the best that any ancestor answered of it (0 to 1); None where it was never asked for.
        has: what the parent answers.
        times: how often each of its rows is taken.
        dreamer: number of the teacher that dreams of it.
    """

    lesson: str
    had: float | None = None
    has: float | None = None
    times: int = 1
    dreamer: int = PARENT

    @property
    def lost(self) -> float:
        """What the parent lies below the best, 0 to 1; 0 where that is not known."""
        return 0.0 if self.had is None or self.has is None else max(0.0, self.had - self.has)


@dataclass(frozen=True)
class RehearsalPlan:
    """What a child rehearses.

    Args:
        lessons: its ancestors', oldest first.
        older: generations that dream beside the parent, by number.
    """

    lessons: tuple[Rehearsed, ...] = ()
    older: Mapping[int, str] = field(default_factory=dict)

    @property
    def times(self) -> list[int]:
        """How often the rows of each lesson are taken."""
        return [one.times for one in self.lessons]

    @property
    def dreamers(self) -> list[int]:
        """Who dreams of each lesson."""
        return [one.dreamer for one in self.lessons]

    def told(self) -> list[str]:
        """A sentence for each lesson that is rehearsed otherwise than the rest."""
        return [self._told(one) for one in self.lessons if one.times > 1 or one.dreamer != PARENT]

    def _told(self, one: Rehearsed) -> str:
        by = f", dreamt by {self.older[one.dreamer]}" if one.dreamer in self.older else ""
        times = f", its rows taken {one.times} times" if one.times > 1 else ""
        return f"{one.lesson} fell from {one.had:.2f} to {one.has:.2f}{times}{by}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        older = {str(number): ref for number, ref in self.older.items()}
        return {"lessons": [asdict(one) for one in self.lessons], "older": older}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RehearsalPlan:
        """Read what ``to_dict`` wrote."""
        older = {int(number): ref for number, ref in stored["older"].items()}
        return cls(tuple(Rehearsed(**one) for one in stored["lessons"]), older)


def rehearses(manifest: Manifest) -> bool:
    """Whether anything is rehearsed otherwise than evenly, by the parent."""
    wanted, stabilizers = manifest.stabilizers.rehearsal, manifest.stabilizers
    return stabilizers.replay_buffer and (wanted.shares == "fading" or wanted.older_teachers > 0)


def stored_reports(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The reports of generations as plain data, because one may be of an older form; one that was imported unexamined
    has none."""
    files = {ref: folder / "ladder" / REPORT for ref, folder in folders.items()}
    return {ref: json.loads(file.read_text(encoding="utf-8")) for ref, file in files.items() if file.is_file()}


def standings_of(line: Sequence[str], reports: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What a line's stored reports say of its lessons. Where a generation has no report of its own, its child's says
    what it answered beside it.

    Args:
        line: the ancestors, oldest first.
        reports: of those that have one, by reference.
    """
    found: dict[str, dict[str, float]] = {ref: {} for ref in line}
    for ref, before in zip(line, [None, *line], strict=False):
        gates = reports[ref]["gates"] if ref in reports else {"results": [], "per_ancestor": {}}
        for result in gates["results"]:
            if result["name"] == "generalize" and result["value"] is not None:
                found[ref][ref] = result["value"]
        for lesson, kept in gates["per_ancestor"].items():
            if lesson in found:
                found[lesson][ref] = kept["child"]
                if before is not None and kept.get("parent") is not None:
                    found[lesson].setdefault(before, kept["parent"])
    return found


def plan_rehearsal(
    manifest: Manifest,
    line: Sequence[str],
    standings: Standings,
    named: Mapping[str, int],
    dreamt: Collection[str],
) -> RehearsalPlan:
    """How often each lesson is rehearsed, and who dreams of it: the newest ancestor that still knows it, where that is
    not the parent. Where more would be needed than there may be, those that bring back most.

    Args:
        line: the ancestors, oldest first, the parent last.
        named: numbers of the generations that teach by the manifest, by reference.
        dreamt: ancestors whose rows dreams can begin with.
    """
    wanted, parent = manifest.stabilizers.rehearsal, line[-1]
    found = [_measured(ref, standings.get(ref, {}), parent) for ref in line]
    if wanted.shares == "fading":
        found = [replace(one, times=_times(one, wanted)) for one in found]
    asked = {
        one.lesson: standings[one.lesson]
        for one in found
        if one.lost > wanted.tolerance + _SAME and one.lesson in dreamt and dreams_by_lesson(manifest)
    }
    older = _knowing(asked, line, wanted)
    numbers = {parent: PARENT} | _numbers(manifest, older, named)
    lessons = [
        replace(one, dreamer=numbers[_newest_knowing(asked[one.lesson], [parent, *older], wanted)])
        if one.lesson in asked
        else one
        for one in found
    ]
    # One that brings back most may yet be the newest for no lesson.
    needed = {one.dreamer for one in lessons}
    return RehearsalPlan(tuple(lessons), {numbers[ref]: ref for ref in older if numbers[ref] in needed})


def rehearsal_of(manifest: Manifest, ancestors: Mapping[str, Path], named: Mapping[str, int]) -> RehearsalPlan:
    """What a child rehearses, by what its ancestors left; nothing special where its manifest asks for nothing.

    Args:
        ancestors: their folders by reference, oldest first.
        named: numbers of the generations that teach by the manifest, by reference.
    """
    if not ancestors or not rehearses(manifest):
        return RehearsalPlan()
    line, elsewhere = list(ancestors), manifest.data is not None and bool(manifest.data.replay_from)
    dreamt = [ref for ref, folder in ancestors.items() if leaves_rows(folder, hashed=elsewhere)]
    return plan_rehearsal(manifest, line, standings_of(line, stored_reports(ancestors)), named, dreamt)


def dreams_by_lesson(manifest: Manifest) -> bool:
    """Whether dreams begin with what ancestors left, so that it is known of which lesson they are."""
    wanted = manifest.stabilizers.dreams
    return isinstance(wanted, Dreams) and wanted.prompts in ("auto", "replay")


def _measured(lesson: str, known: Mapping[str, float], parent: str) -> Rehearsed:
    return Rehearsed(lesson, max(known.values(), default=None), known.get(parent))


def _times(one: Rehearsed, wanted: Rehearsal) -> int:
    return min(wanted.most, 1 + int(one.lost / wanted.tolerance + _SAME))


def _knowing(fading: Standings, line: Sequence[str], wanted: Rehearsal) -> list[str]:
    """Older ancestors that know what fades, newest first: one after another the one that adds most to what is known,
    the newest of several."""
    parent, chosen = line[-1], list[str]()
    while len(chosen) < wanted.older_teachers:
        gains = {ref: _gain(fading, ref, [parent, *chosen], wanted) for ref in reversed(line[:-1])}
        best = max(gains, key=lambda ref: gains[ref], default=None)
        if best is None or gains[best] <= _SAME:
            break
        chosen.append(best)
    return [ref for ref in reversed(line) if ref in chosen]


def _gain(fading: Standings, ref: str, speakers: Iterable[str], wanted: Rehearsal) -> float:
    """What one more teacher would know, summed over the lessons that fade."""
    return sum(
        max(0.0, _worth(known, ref, wanted) - max(_worth(known, one, wanted) for one in speakers))
        for known in fading.values()
    )


def _worth(known: Mapping[str, float], ref: str, wanted: Rehearsal) -> float:
    """What a generation knows of a lesson; within the tolerance of the best all know the same."""
    return min(known.get(ref, 0.0), max(known.values()) - wanted.tolerance)


def _newest_knowing(known: Mapping[str, float], speakers: Sequence[str], wanted: Rehearsal) -> str:
    """Who knows most of a lesson, the newest of several; ``speakers`` are ordered so."""
    return max(speakers, key=lambda ref: _worth(known, ref, wanted))


def _numbers(manifest: Manifest, older: Sequence[str], named: Mapping[str, int]) -> dict[str, int]:
    """The numbers of older teachers in a run: their own where they teach anyway, else the next ones."""
    first = FIRST_OTHER + len(others(manifest))
    further = [ref for ref in older if ref not in named]
    return {ref: named[ref] for ref in older if ref in named} | {ref: first + n for n, ref in enumerate(further)}
