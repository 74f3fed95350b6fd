"""The verdict as one self-contained HTML page: gates, differences with their bounds, lost answers, laws, routes.

The page asks for nothing from outside: no script, font, picture or address of another host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ladder.gates import GateReport
from ladder.gates.exam import Noise
from ladder.gates.pulse import FIGURES, Pulse
from ladder.gates.regressions import Comparison

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Values by name, each with its step."""

_COLOURS = {
    "gold": "#d99a1c",
    "blended": "#2f6fb5",
    "teacher1": "#7ab0e0",
    "teacher2": "#1f8a8a",
    "dream": "#8a6fb5",
    "skip": "#c4cad4",
}
"""Routes from the bottom of the chart to its top."""


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Args:
        child: its name; ``parent`` and ``grandparent`` are references, None where there are none.
        digest: of the model; ``manifest_digest`` of its manifest.
        line: the references of all ancestors, oldest first.
        comparison: what was lost and gained against the parent.
        noise: how far the child's answers depend on the batch.
        pulse: calibration and collapse.
        routes: share of the trained tokens (0 to 1) by route and step.
    """

    child: str
    method: str
    note: str
    digest: str
    manifest_digest: str
    parent: str | None
    grandparent: str | None
    line: Sequence[str]
    gates: GateReport
    comparison: Comparison | None = None
    noise: Noise = field(default_factory=Noise)
    pulse: Pulse = field(default_factory=Pulse)
    routes: Series = field(default_factory=dict)


def html(page: Page) -> str:
    """The page."""
    plots = [(rows, Scale.of(rows)) for rows in forests(page.gates) if rows]
    confidence = 100 * float(page.gates.settings.get("confidence", 0.95))
    verdict = "passed all gates" if page.gates.passed else f"rejected by {', '.join(page.gates.failed)}"
    steps = 1 + max((step for series in page.routes.values() for step, _ in series), default=-1)
    return _template().render(
        page=page,
        verdict=verdict,
        plots=plots,
        confidence=f"{confidence:.4g}",
        pulses=pulses(page.pulse),
        layers=layers(page.routes),
        steps=steps,
    )


class Row(NamedTuple):
    """A line of the forest plot: a difference (-1 to 1), its bounds, and what it may fall to."""

    label: str
    value: float
    low: float
    high: float
    margin: float | None
    state: str

    @property
    def text(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def forests(gates: GateReport) -> tuple[list[Row], list[Row]]:
    """Recall over all ancestors and on each, and generalize, which may differ by much more; empty without a parent."""
    drop = -float(gates.settings["recall"]["max_drop"])
    recall, own, *_ = gates.results
    kept = _row("recall", recall.value, recall.parent_value, recall.low, recall.high, drop, recall.passed)
    for name, one in gates.per_ancestor.items():
        kept += _row(name, one.child, one.parent, one.low, one.high, drop, not one.fallen)
    return kept, _row("generalize", own.value, own.parent_value, own.low, own.high, None, own.passed)


def _row(
    label: str,
    child: float | None,
    parent: float | None,
    low: float | None,
    high: float | None,
    margin: float | None,
    passed: bool,
) -> list[Row]:
    if child is None or parent is None or low is None or high is None:
        return []
    return [Row(label, child - parent, low, high, margin, "passed" if passed else "failed")]


def pulses(pulse: Pulse) -> list[tuple[str, float | None, float | None]]:
    """What was measured of child or parent: in words, the child's figure, the parent's."""
    measured = [name for name in FIGURES if name in pulse.child or name in pulse.parent]
    return [(FIGURES[name], pulse.child.get(name), pulse.parent.get(name)) for name in measured]


class Scale(NamedTuple):
    """Maps a difference to per cent of a track's width."""

    low: float
    high: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Scale:
        """Wide enough for every row, and for 0."""
        ends = [end for row in rows for end in (row.low, row.high, row.value, row.margin or 0.0)]
        low, high = min([0.0, *ends]), max([0.0, *ends])
        room = 0.05 * (high - low or 1.0)
        return cls(low - room, high + room)

    def __call__(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 3)


class Layer(NamedTuple):
    """One route of the stacked chart: a polygon in a square of 100 by 100, and what the legend says."""

    points: str
    colour: str
    text: str


def layers(routes: Series, most: int = 200) -> list[Layer]:
    """Stacked shares over the steps, each a mean over one of at most ``most`` stretches; empty routes are left out."""
    known = {name: [share for _, share in routes.get(name, ())] for name in _COLOURS}
    taken = {name: shares for name, shares in known.items() if any(shares)}
    base, found = [0.0] * most, []
    for name, shares in taken.items():
        thin = _thinned(shares, most)
        top = [low + share for low, share in zip(base, thin, strict=False)]
        points = [*_corners(top), *reversed(_corners(base[: len(top)]))]
        text = f"{name} {sum(shares) / len(shares):.0%}"
        found.append(Layer(" ".join(points), _COLOURS[name], text))
        base = top
    return found


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Means over equal stretches."""
    count = min(most, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    parts = [values[start:end] for start, end in pairwise(edges)]
    return [sum(part) / len(part) for part in parts]


def _corners(heights: Sequence[float]) -> list[str]:
    width = 100 / max(1, len(heights) - 1)
    return [f"{index * width:.2f},{100 - 100 * min(1.0, height):.2f}" for index, height in enumerate(heights)]


def _template() -> Template:
    folder = Path(__file__).parent
    # Answers of a model are hostile text.
    room = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    room.filters |= {"figure": "{:.4g}".format, "percent": "{:.1%}".format}
    return room.get_template("page.html.jinja")
