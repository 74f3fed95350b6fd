"""The verdict as one self-contained HTML page: what it took, gates, differences with their bounds, answers side by
side, laws, the training's curves, who taught.

The page asks for nothing from outside: no script, font, picture or address of another host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ladder.exam import FIGURES, Calibration, Noise
from ladder.gates import Comparison, GateReport, Missed
from ladder.report.charts import (
    SOURCE_COLUMNS,
    Scale,
    Series,
    Source,
    Worth,
    bands,
    curves,
    forests,
    harmed_most,
    sources,
    tracks,
)
from ladder.report.drawing import (
    Chart,
    Layer,
    Tick,
    band_layers,
    curve_chart,
    rounds,
    route_chart,
    template,
    track_chart,
)


@dataclass(frozen=True)
class Page:
    """What the page and the plots beside it show.

    Args:
        child: its name; ``parent`` and ``grandparent`` are references, None where there are none.
        digest: of the model; ``manifest_digest`` of its manifest.
        line: the references of all ancestors, oldest first.
        comparison: what was lost and gained against the parent.
        missed: own probes that the child answers wrongly, whatever its parent says to them.
        noise: how far the child's answers depend on the batch.
        calibration: and diversity, of child and parent.
        routes: share of the trained tokens (0 to 1) by route and step.
        losses: the terms of the loss by name and step, each a mean over the trained tokens.
        worth: what each source of the teachers was worth, by its name; empty where it was not measured.
        errors: the student's calibration error by step, of the gold tokens; empty in runs from before it was measured.
        temperatures: of the targets and of the student, where they vary.
        pace: other figures of the steps, each for a chart of its own.
        began: when the run began, and ``decided`` when its verdict was written; UTC, None where nobody knows.
        took: what the run took, name by name, in words.
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
    missed: Missed | None = None
    noise: Noise = field(default_factory=Noise)
    calibration: Calibration = field(default_factory=Calibration)
    routes: Series = field(default_factory=dict)
    losses: Series = field(default_factory=dict)
    worth: Worth = field(default_factory=dict)
    errors: Series = field(default_factory=dict)
    temperatures: Series = field(default_factory=dict)
    pace: Series = field(default_factory=dict)
    began: datetime | None = None
    decided: datetime | None = None
    took: Sequence[tuple[str, str]] = ()

    @property
    def verdict(self) -> str:
        return "passed all gates" if self.gates.passed else f"rejected by {', '.join(self.gates.failed)}"

    @property
    def confidence(self) -> str:
        """With which each end of a bar holds, in per cent."""
        return f"{100 * float(self.gates.settings.get('confidence', 0.95)):.4g}"


def html(page: Page) -> str:
    """The page."""
    plots = [(rows, scale, scale_ticks(scale)) for rows in forests(page.gates) if rows for scale in [Scale.of(rows)]]
    found, calibration = sources(page.worth), calibration_rows(page.calibration)
    training, routes = training_charts(page), layers(page.routes)
    steps = 1 + max((step for series in page.routes.values() for step, _ in series), default=-1)
    sections = {
        "gates": ("Gates", True),
        "differences": ("Difference to the parent", plots),
        "answers": ("Answers", page.comparison or (page.missed and page.missed.wrong)),
        "calibration": ("Calibration and collapse", calibration),
        "laws": ("Laws", page.gates.laws),
        "took": ("What it took", page.took or page.decided),
        "training": ("Training", training),
        "taught": ("Who taught", routes),
        "worth": ("What each teacher was worth", found),
    }
    return template("page.html.jinja").render(
        page=page,
        sections=[(name, title) for name, (title, shown) in sections.items() if shown],
        plots=plots,
        calibration_rows=calibration,
        training=training,
        routes=route_chart(routes, steps) if routes else None,
        steps=steps,
        sources=found[:LISTED],
        more=len(found) - LISTED,
        columns=SOURCE_COLUMNS,
        harms=harms(found),
        tracks=[
            track_chart(f"{name.capitalize()}, the last one beside each name", shown)
            for name, shown in tracks(found).items()
        ],
    )


def training_charts(page: Page) -> list[Chart]:
    """How the training went, step by step."""
    shown = {
        "Terms of the loss, mean over the trained tokens": page.losses,
        "Calibration error, of the gold tokens": page.errors,
        "Temperature, mean": page.temperatures,
        **{name: {name: points} for name, points in page.pace.items()},
    }
    found = {title: curves(series) for title, series in shown.items()}
    return [curve_chart(title, lines) for title, lines in found.items() if lines]


def scale_ticks(scale: Scale) -> list[Tick]:
    """Round differences under a forest plot."""
    values = (value for value in rounds(scale.low, scale.high, 5) if scale.low <= value <= scale.high)
    return [Tick(scale(value), f"{value:+.3g}" if value else "0") for value in values]


def calibration_rows(calibration: Calibration) -> list[tuple[str, float | None, float | None]]:
    """Rows of the calibration table: the figure in words, the child's, the parent's."""
    measured = [name for name in FIGURES if name in calibration.child or name in calibration.parent]
    return [(FIGURES[name], calibration.child.get(name), calibration.parent.get(name)) for name in measured]


def layers(routes: Series, most: int = 200) -> list[Layer]:
    """Stacked shares over the steps, each a mean over one of at most ``most`` stretches; empty routes are left out."""
    return band_layers(bands(routes, most))


LISTED = 40
"""Sources that the page names."""


def harms(found: Sequence[Source]) -> list[tuple[Source, float, float]]:
    """Bars of the sources whose harm was measured, with their left end and width in per cent; 0 is at 50."""
    measured = [(one, one.harm or 0.0) for one in harmed_most(found)]
    largest = max((abs(harm) for _, harm in measured), default=0.0) or 1.0
    wide = [(one, round(48 * harm / largest, 3)) for one, harm in measured]
    return [(one, min(50.0, 50.0 + width), abs(width)) for one, width in wide]
