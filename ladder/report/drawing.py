"""Charts of the pages: lines, bands and dots in a square of 100 by 100 that is stretched to its place, with the ticks
of its axes beside it as text, which is not; and what every page shares: colours, and templates that trust no text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

if TYPE_CHECKING:
    from ladder.report.charts import Band, Curve, Track

PAINTS = {
    "#d99a1c": ("#b47a06", "#e8b04a"),
    "#2f6fb5": ("#2f6fb5", "#78b0ee"),
    "#7ab0e0": ("#5c9bd1", "#a9d0f2"),
    "#1f8a8a": ("#1a7f7f", "#4cc0bf"),
    "#8a6fb5": ("#7d5fae", "#b7a0de"),
    "#c4cad4": ("#8790a0", "#7f899b"),
    "#b3261e": ("#b3261e", "#ff8a80"),
    "#5b8c2a": ("#4f7d22", "#9ccb67"),
    "#c2608f": ("#b34e80", "#eb9cc3"),
    "#5b6577": ("#5b6577", "#aab4c6"),
}
"""The colours of the charts as pages paint them: on white, and on a dark screen."""
LINES = tuple(colour for colour in PAINTS if colour not in ("#7ab0e0", "#c4cad4"))
"""Colours of lines that have none of their own."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""By which axes are divided, times a power of ten."""


class Tick(NamedTuple):
    """A number beside an axis, and where: per cent from the left, or from the top."""

    place: float
    text: str


class Layer(NamedTuple):
    """One line or band: its points in a square of 100 by 100, its colour, and what the legend says."""

    points: str
    colour: str
    text: str

    @property
    def paint(self) -> str:
        """The colour as the style names it, which a dark screen has another one for."""
        return f"var({variable(self.colour)})"


class Dot(NamedTuple):
    """A mark at a point, in per cent from the left and from the top: its shape (a class of the style), its title."""

    left: float
    top: float
    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    """One chart with its axes.

    Args:
        title: stands above it; empty where a heading says it.
        label: what the horizontal axis counts.
        layers: lines, or bands where ``filled``.
        across: ticks of the horizontal axis, ``up`` of the vertical one.
        dots: marks on it; a chart that has some draws its lines without dashes and legend.
        said: what it shows, in words; left out, what its lines and dots say.
    """

    title: str
    label: str
    layers: Sequence[Layer]
    across: Sequence[Tick]
    up: Sequence[Tick]
    filled: bool = False
    dots: Sequence[Dot] = ()
    said: str = ""

    @property
    def alt(self) -> str:
        """What it shows, for whoever does not see it."""
        told = self.said or "; ".join(one.text for one in self.dots or self.layers)
        return f"{self.title or 'Chart'} by {self.label}: {told}"


def rounds(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about ``most`` steps of 1, 2, 2.5 or 5 times a power of
    ten apart."""
    width = (high - low) / most or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width))
    step = next(size for times in _STEPS if (size := times * power) >= width * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def up(values: Sequence[float]) -> list[Tick]:
    """Ticks of a vertical axis from the first to the last of these values."""
    low, high = values[0], values[-1]
    return [Tick(round(98 - 96 * (value - low) / (high - low), 2), f"{value:,.6g}") for value in values]


def across(last: int, most: int = 5) -> list[Tick]:
    """Ticks of a horizontal axis that counts from 0 to ``last``; whole numbers."""
    if last <= 0:
        return [Tick(0.0, "0")]
    whole = [int(value) for value in rounds(0, last, most) if value <= last and value == int(value)]
    return [Tick(round(100 * value / last, 2), f"{value:,}") for value in whole]


def curve_chart(title: str, found: Sequence[Curve]) -> Chart:
    """Values over the steps as lines, each between its own least and largest value and those of the others."""
    values = [value for curve in found for value in curve.values]
    scale = rounds(min(0.0, *values), max(values))
    last = max(curve.edges[-1] for curve in found)
    layers = [
        Layer(" ".join(_middles(curve, last, scale)), LINES[place % len(LINES)], _from_to(curve))
        for place, curve in enumerate(found)
    ]
    return Chart(title, "step", layers, across(last), up(scale))


def _from_to(curve: Curve) -> str:
    first, last = curve.values[0], curve.values[-1]
    return f"{curve.name} {first:.3g} at first, {last:.3g} at last"


def _middles(curve: Curve, last: int, scale: Sequence[float]) -> Iterator[str]:
    """The middle of each stretch at its mean."""
    for (start, end), value in zip(pairwise(curve.edges), curve.values, strict=True):
        height = (value - scale[0]) / (scale[-1] - scale[0])
        yield f"{50 * (start + end) / last:.2f},{98 - 96 * height:.2f}"


def route_chart(layers: Sequence[Layer], steps: int) -> Chart:
    """Shares of the routes, stacked."""
    shares = [Tick(place, text) for place, text in ((0, "100%"), (50, "50%"), (100, "0%"))]
    return Chart("Share of the trained tokens", "step", layers, across(steps - 1), shares, filled=True)


def band_layers(found: Sequence[Band]) -> list[Layer]:
    """Bands as polygons."""
    return [Layer(_outline(band.low, band.high), band.colour, band.text) for band in found]


def track_chart(title: str, shown: Sequence[Track]) -> Chart:
    """Figures from 0 to 1 over the steps as stairs, with a little room above 1 and below 0."""
    last = max(track.edges[-1] for track in shown)
    layers = [Layer(" ".join(_stairs(track, last)), track.colour, track.text) for track in shown]
    return Chart(title, "step", layers, across(last), up([0.0, 0.5, 1.0]))


def _stairs(track: Track, last: int) -> Iterator[str]:
    for edges, value in zip(pairwise(track.edges), track.values, strict=True):
        yield from (f"{100 * edge / last:.2f},{98 - 96 * value:.2f}" for edge in edges)


def _outline(low: Sequence[float], high: Sequence[float]) -> str:
    return " ".join([*_corners(high), *reversed(_corners(low))])


def _corners(heights: Sequence[float]) -> list[str]:
    width = 100 / max(1, len(heights) - 1)
    return [f"{index * width:.2f},{100 - 100 * min(1.0, height):.2f}" for index, height in enumerate(heights)]


def variable(colour: str) -> str:
    """The name that the style has for a colour."""
    return f"--c{colour.removeprefix('#')}"


def template(name: str) -> Template:
    """A template of this folder."""
    # Answers of a model are hostile text.
    room = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    room.filters |= {"figure": "{:.4g}".format, "percent": "{:.1%}".format, "moment": moment}
    painted: dict[str, Mapping[str, str]] = {
        scheme: {variable(colour): pair[place] for colour, pair in PAINTS.items()}
        for place, scheme in enumerate(("light", "dark"))
    }
    room.globals |= {"paints": painted}
    return room.get_template(name)


def moment(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
