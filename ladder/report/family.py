"""A family as one self-contained HTML page: its tree, the recall of every lesson over the generations, the moves of
HEAD, and every figure over time. It is drawn from what the registry lists, as ``ladder lineage`` is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ladder.data import PAGE
from ladder.exam import FIGURES
from ladder.registry import Event, Generation, Registry
from ladder.registry.tree import children_of, tree
from ladder.report.drawing import Chart, Dot, Layer, Tick, rounds, template, up
from ladder.report.lineage import FIGURES_OF_GATES, Standing, concepts_read, further_gates
from ladder.system.files import save_text

SHOWN = 120
"""Generations that a chart shows, the newest ones."""
COLUMNS = 16
"""Generations that the table of lessons shows, and twice as many lessons."""
EVENTS = 300
"""Events that the page lists, the newest ones."""
_LINE, _EDGE = "#2f6fb5", "#5b6577"
_ALLOWED = 8
"""Ticks of an axis of generations."""


class Lesson(NamedTuple):
    """How much of one generation's probes each of some others answers: 0 to 1, None where it was not asked."""

    ref: str
    recall: Sequence[float | None]


def write(registry: Registry, family: str, generations: Sequence[Generation], events: Sequence[Event]) -> Path:
    """Write the page into the home's cache, with links to the pages of verdicts that lie in the home; returns where."""
    path = registry.home / "cache" / "pages" / f"{family}.html"
    artifacts = registry.store.artifacts
    found = artifacts.glob(f"*/models/*/artifacts/ladder/{PAGE}") if artifacts else ()
    by_model = {page.parents[2].name: quote(os.path.relpath(page, path.parent)) for page in found}
    pages = {one.ref: by_model[one.model_id] for one in generations if one.model_id in by_model}
    save_text(path, html(family, generations, events, pages))
    return path


def html(family: str, generations: Sequence[Generation], events: Sequence[Event], pages: Mapping[str, str]) -> str:
    """The page.

    Args:
        generations: all of the family, a parent before its children; at least one.
        events: its history, oldest first.
        pages: where the page of a generation's verdict lies, by reference; without one there is no link.
    """
    head = next((one for one in generations if one.is_head), None)
    newest, moves = generations[-SHOWN:], [event for event in events if event.moves_head]
    columns, lessons = lessons_of(generations)
    return template("family.html.jinja").render(
        family=family,
        head=head,
        since=moves[-1].time if head and moves else None,
        before=next((move.from_ref for move in reversed(moves) if head and move.to_ref == head.ref), None),
        standing=Standing.of(family, generations),
        began=generations[0].created,
        tree=[(len(prefix) // 2, one) for prefix, one in tree(generations)],
        tree_chart=tree_chart(newest) if len(generations) > 1 else None,
        hidden=len(generations) - len(newest),
        gates=FIGURES_OF_GATES,
        charts=figure_charts(newest),
        columns=columns,
        lessons=lessons,
        moves_chart=moves_chart(moves[-SHOWN:], generations) if len(moves) > 1 else None,
        events=list(reversed(events))[:EVENTS],
        more=len(events) - EVENTS,
        pages=pages,
    )


def lessons_of(generations: Sequence[Generation]) -> tuple[Sequence[Generation], list[Lesson]]:
    """The newest generations that were examined, and what each of them knows of every lesson: its own, which is how
    well it learned it, and those of its ancestors."""
    refs = {one.ref for one in generations}
    columns = [one for one in generations if "gate.generalize" in one.metrics][-COLUMNS:]
    asked = {ref for one in columns for ref in refs if ref == one.ref or f"gate.recall.{ref}" in one.metrics}
    rows = [one.ref for one in generations if one.ref in asked][-2 * COLUMNS :]
    return columns, [Lesson(ref, [_known(one, ref) for one in columns]) for ref in rows]


def _known(one: Generation, lesson: str) -> float | None:
    return one.metrics.get("gate.generalize" if one.ref == lesson else f"gate.recall.{lesson}")


def figure_charts(generations: Sequence[Generation]) -> list[Chart]:
    """Every figure over the generations: the gates', those of calibration and collapse, and concepts read."""
    named = FIGURES_OF_GATES | further_gates(generations) | {text: f"pulse.{name}" for name, text in FIGURES.items()}
    named |= concepts_read(generations)
    metrics = {metric: name for name, metric in named.items()}  # One figure has one chart, under its longest name.
    return [
        _figure_chart(name, metric, generations)
        for metric, name in metrics.items()
        if any(metric in one.metrics for one in generations)
    ]


def _figure_chart(name: str, metric: str, generations: Sequence[Generation]) -> Chart:
    """A dot for each generation that has the figure, and a line through HEAD's ancestors."""
    found = [(place, one, one.metrics[metric]) for place, one in enumerate(generations) if metric in one.metrics]
    values = [value for _, _, value in found]
    scale = rounds(min(0.0, *values), max(values))
    left, line = _place_of(len(generations)), _line_of_head(generations)

    def top(value: float) -> float:
        return round(98 - 96 * (value - scale[0]) / (scale[-1] - scale[0]), 2)

    dots = [Dot(left(n), top(value), _kind(one), f"{one.ref} {one.verdict}: {value:.3g}") for n, one, value in found]
    points = " ".join(f"{left(place)},{top(value)}" for place, one, value in found if one.ref in line)
    return Chart(name, "generation", [Layer(points, _LINE, name)], _names(generations), up(scale), dots=dots)


def tree_chart(generations: Sequence[Generation]) -> Chart:
    """The tree as a picture: time goes to the right, HEAD's line is at the top, and branches lie below."""
    line, left = _line_of_head(generations), _place_of(len(generations))
    lanes = {one.ref: 0 if one.ref in line else 1 + len(prefix) // 2 for prefix, one in tree(generations)}
    top = {ref: round(25 + 60 * lane / max(1, *lanes.values()), 2) for ref, lane in lanes.items()}
    dots = [Dot(left(place), top[one.ref], _kind(one), _told(one)) for place, one in enumerate(generations)]
    edges = [
        Layer(
            f"{dots[parent].left},{dots[parent].top} {dots[child].left},{dots[child].top}",
            _EDGE,
            f"{generations[parent].ref} to {generations[child].ref}",
        )
        for parent, children in children_of(generations).items()
        for child in children
        if parent is not None
    ]
    return Chart("", "generation", edges, _names(generations), [], dots=dots)


def moves_chart(moves: Sequence[Event], generations: Sequence[Generation]) -> Chart:
    """Where HEAD was after each of its moves."""
    order = {one.ref: place for place, one in enumerate(generations)}
    where = [order.get(move.to_ref, 0) for move in moves]
    low, high = min(where), max(where)
    left = _place_of(len(moves))

    def top(place: int) -> float:
        return round(92 - 84 * (place - low) / max(1, high - low), 2)

    points = [(left(number), top(place)) for number, place in enumerate(where)]
    stairs = [corner for (x, y), (after, _) in pairwise(points) for corner in ((x, y), (after, y))]
    line = Layer(" ".join(f"{x},{y}" for x, y in [*stairs, points[-1]]), _LINE, "HEAD")
    dots = [Dot(x, y, move.kind, f"{move.kind} to {move.to_ref}") for (x, y), move in zip(points, moves, strict=True)]
    ticks = [Tick(left(number), f"{moves[number].time:%m-%d %H:%M}") for number in _some(len(moves), _ALLOWED // 2)]
    names = [Tick(top(low + place), generations[low + place].ref) for place in _some(high - low + 1, _ALLOWED // 2)]
    return Chart("Where HEAD was after each move", "move (UTC)", [line], ticks, names, dots=dots)


def _told(one: Generation) -> str:
    failed = f", failed {', '.join(one.failed_gates)}" if one.failed_gates else ""
    parent = f", from {one.parent_name}" if one.parent_name else ""
    return f"{one.ref} {one.verdict}{', HEAD' if one.is_head else ''}{parent}{failed}"


def _kind(one: Generation) -> str:
    return f"{one.verdict} head" if one.is_head else str(one.verdict)


def _line_of_head(generations: Sequence[Generation]) -> set[str]:
    """References of HEAD and its ancestors."""
    parents = {child: parent for parent, children in children_of(generations).items() for child in children}
    here = next((place for place, one in enumerate(generations) if one.is_head), None)
    line = list[str]()
    while here is not None:
        line.append(generations[here].ref)
        here = parents[here]
    return set(line)


def _place_of(count: int) -> Callable[[int], float]:
    """Where one of so many stands, in per cent from the left."""
    return lambda place: round(4 + 92 * place / max(1, count - 1), 2)


def _names(generations: Sequence[Generation]) -> list[Tick]:
    left = _place_of(len(generations))
    return [Tick(left(place), generations[place].ref.rpartition("-")[2]) for place in _some(len(generations), _ALLOWED)]


def _some(count: int, most: int) -> list[int]:
    """At most so many places, the first and the last among them."""
    apart = max(1, -(-(count - 1) // max(1, most - 1)))
    return sorted({count - 1, *range(0, max(1, count - 3 * apart // 4), apart)})
