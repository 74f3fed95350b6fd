"""The verdict as one self-contained HTML page: gates, differences with their bounds, lost answers, laws, routes.

The page asks for nothing from outside: no script, font, picture or address of another host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ladder.exam import FIGURES, Calibration, Noise
from ladder.gates import Comparison, GateReport
from ladder.report.charts import (
    SOURCE_COLUMNS,
    Scale,
    Series,
    Source,
    Track,
    Worth,
    bands,
    forests,
    harmed_most,
    sources,
    tracks,
)


@dataclass(frozen=True)
class Page:
    """What the page and the plots beside it show.

    Args:
        child: its name; ``parent`` and ``grandparent`` are references, None where there are none.
        digest: of the model; ``manifest_digest`` of its manifest.
        line: the references of all ancestors, oldest first.
        comparison: what was lost and gained against the parent.
        noise: how far the child's answers depend on the batch.
        calibration: and diversity, of child and parent.
        routes: share of the trained tokens (0 to 1) by route and step.
        losses: the terms of the loss by name and step, each a mean over the trained tokens.
        worth: what each source of the teachers was worth, by its name; empty where it was not measured.
        errors: the student's calibration error by step, of the gold tokens; empty in runs from before it was measured.
        temperatures: of the targets and of the student, where they vary.
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
    calibration: Calibration = field(default_factory=Calibration)
    routes: Series = field(default_factory=dict)
    losses: Series = field(default_factory=dict)
    worth: Worth = field(default_factory=dict)
    errors: Series = field(default_factory=dict)
    temperatures: Series = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return "passed all gates" if self.gates.passed else f"rejected by {', '.join(self.gates.failed)}"

    @property
    def confidence(self) -> str:
        """With which each end of a bar holds, in per cent."""
        return f"{100 * float(self.gates.settings.get('confidence', 0.95)):.4g}"


def html(page: Page) -> str:
    """The page."""
    plots = [(rows, Scale.of(rows)) for rows in forests(page.gates) if rows]
    steps = 1 + max((step for series in page.routes.values() for step, _ in series), default=-1)
    found = sources(page.worth)
    return _template().render(
        page=page,
        plots=plots,
        calibration_rows=calibration_rows(page.calibration),
        layers=layers(page.routes),
        steps=steps,
        sources=found[:LISTED],
        more=len(found) - LISTED,
        columns=SOURCE_COLUMNS,
        harms=harms(found),
        tracks={figure: _lines(shown) for figure, shown in tracks(found).items()},
    )


def calibration_rows(calibration: Calibration) -> list[tuple[str, float | None, float | None]]:
    """Rows of the calibration table: the figure in words, the child's, the parent's."""
    measured = [name for name in FIGURES if name in calibration.child or name in calibration.parent]
    return [(FIGURES[name], calibration.child.get(name), calibration.parent.get(name)) for name in measured]


class Layer(NamedTuple):
    """One route of the stacked chart: a polygon in a square of 100 by 100, and what the legend says."""

    points: str
    colour: str
    text: str


def layers(routes: Series, most: int = 200) -> list[Layer]:
    """Stacked shares over the steps, each a mean over one of at most ``most`` stretches; empty routes are left out."""
    return [Layer(_outline(band.low, band.high), band.colour, band.text) for band in bands(routes, most)]


LISTED = 40
"""Sources that the page names."""


def harms(found: Sequence[Source]) -> list[tuple[Source, float, float]]:
    """Bars of the sources whose harm was measured, with their left end and width in per cent; 0 is at 50."""
    measured = [(one, one.harm or 0.0) for one in harmed_most(found)]
    largest = max((abs(harm) for _, harm in measured), default=0.0) or 1.0
    wide = [(one, round(48 * harm / largest, 3)) for one, harm in measured]
    return [(one, min(50.0, 50.0 + width), abs(width)) for one, width in wide]


def _lines(shown: Sequence[Track]) -> list[Layer]:
    """Figures over the steps as lines in a square of 100 by 100, with a little room above 1 and below 0."""
    last = max(track.edges[-1] for track in shown)
    return [Layer(" ".join(_stairs(track, last)), track.colour, track.text) for track in shown]


def _stairs(track: Track, last: int) -> Iterator[str]:
    for edges, value in zip(pairwise(track.edges), track.values, strict=True):
        yield from (f"{100 * edge / last:.2f},{98 - 96 * value:.2f}" for edge in edges)


def _outline(low: Sequence[float], high: Sequence[float]) -> str:
    return " ".join([*_corners(high), *reversed(_corners(low))])


def _corners(heights: Sequence[float]) -> list[str]:
    width = 100 / max(1, len(heights) - 1)
    return [f"{index * width:.2f},{100 - 100 * min(1.0, height):.2f}" for index, height in enumerate(heights)]


def _template() -> Template:
    folder = Path(__file__).parent
    # Answers of a model are hostile text.
    room = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    room.filters |= {"figure": "{:.4g}".format, "percent": "{:.1%}".format}
    return room.get_template("page.html.jinja")
