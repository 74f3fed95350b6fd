"""The verdict as pictures: differences to the parent with their bounds, and the training over its steps.

They show what the page shows, for places that take no page, such as a model card or MLflow's list of artifacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING

from ladder.data import GATES_PLOT, TEACHERS_PLOT, TRAINING_PLOT
from ladder.report.charts import Band, Curve, Row, Source, Track, bands, curves, forests, harmed_most, sources, tracks
from ladder.report.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0
"""Inches."""
DOTS = 150
"""Per inch."""
_ROW = 0.34
"""Height of a row of the forest plot, in inches."""
_INK, _SOFT = "#1c2330", "#5b6577"
_STYLES = {"passed": ("o", "#1a7f4b"), "failed": ("X", "#b3261e")}
"""Marker and colour by state."""
_LETTERS = 30
"""Of a label; a longer one keeps its end, where the names of generations differ."""


def pngs(page: Page) -> dict[str, bytes]:
    """The pictures by file name. The same page gives the same bytes with the same matplotlib."""
    teachers = {TEACHERS_PLOT: _png(teachers_figure(page))} if page.worth else {}
    return {GATES_PLOT: _png(gates_figure(page)), TRAINING_PLOT: _png(training_figure(page))} | teachers


def gates_figure(page: Page) -> Figure:
    """A forest plot: each difference to the parent, its bounds, the least that is allowed, and what became of it."""
    groups = [rows for rows in forests(page.gates) if rows]
    if not groups:
        return _empty(page, "No difference to a parent was measured.", _unbounded(page, groups))
    height = _ROW * sum(map(len, groups)) + 0.5 * len(groups) + 1.0
    figure = _figure(page, height, [*_explained(page), *_unbounded(page, groups)])
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=[len(rows) + 0.5 for rows in groups])[:, 0]
    for panel, rows in zip(panels, groups, strict=True):
        _forest(panel, rows)
    return figure


def training_figure(page: Page) -> Figure:
    """Who taught, as stacked shares of the tokens, the terms of the loss, how well calibrated the student was, and the
    temperatures where they vary."""
    routes = bands(page.routes)
    lines = {
        "terms of the loss, mean": curves(page.losses),
        "calibration error": curves(page.errors),
        "temperature, mean": curves(page.temperatures),
    }
    drawings = [partial(_routes, routes=routes)] if routes else []
    drawings += [partial(_lines, terms=terms, label=label) for label, terms in lines.items() if terms]
    if not drawings:
        return _empty(page, "No steps were recorded.", [])
    figure = _figure(page, 2.2 * len(drawings) + 0.8, [])
    panels = figure.subplots(len(drawings), squeeze=False, sharex=True)[:, 0]
    for panel, draw in zip(panels, drawings, strict=True):
        draw(panel)
        panel.margins(x=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, reverse=True)
    panels[-1].set_xlabel("step", fontsize=9)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def teachers_figure(page: Page) -> Figure:
    """What the sources of the teachers were worth: harm as bars, then weight over the steps, and throttle where one
    fell."""
    found = sources(page.worth)
    measured, charts = harmed_most(found), tracks(found)
    heights = [*([_ROW * len(measured) + 0.7] if measured else []), *(1.9 for _ in charts)]
    if not heights:
        return _empty(page, "No source of a teacher taught anything.", [])
    figure = _figure(page, sum(heights) + 0.9, [_HARM] if measured else [])
    panels = list(figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0])
    if measured:
        _harm(panels.pop(0), measured)
    for panel, (name, shown) in zip(panels, charts.items(), strict=True):
        _over_steps(panel, name, shown)
    return figure


_HARM = (
    "Harm: nats by which right tokens would be likelier without it, where others taught with it; left of 0 it helps."
)


def _harm(panel: Axes, measured: Sequence[Source]) -> None:
    colours = {"harms": _STYLES["failed"][1], "helps": _STYLES["passed"][1]}
    harm, places = [one.harm or 0.0 for one in measured], range(len(measured))
    panel.axvline(0, color=_SOFT, linewidth=1)
    panel.barh(places, harm, height=0.5, color=[colours.get(one.verdict, _SOFT) for one in measured])
    # 0 in the middle, so that bars of two pictures say the same by their sides.
    widest = 1.1 * (max(map(abs, harm)) or 1.0)
    panel.set_xlim(-widest, widest)
    panel.set_ylim(len(measured) - 0.5, -0.5)
    panel.set_yticks(places, [_shortened(one.name) for one in measured], fontsize=9)
    figures = panel.secondary_yaxis("right")
    figures.set_yticks(places, [f"{one.harm:+.3f}  {one.verdict}" for one in measured], fontsize=9)
    for side in (panel, figures):
        side.tick_params(axis="y", length=0)
        side.spines[:].set_visible(False)
    panel.tick_params(labelsize=9, axis="x", colors=_SOFT)


def _over_steps(panel: Axes, name: str, shown: Sequence[Track]) -> None:
    for track in shown:
        label = _shortened(track.text)
        panel.stairs(track.values, track.edges, baseline=None, color=track.colour, linewidth=1.8, label=label)
    panel.set_ylim(-0.02, 1.05)
    panel.margins(x=0)
    panel.set_ylabel(name, fontsize=9)
    panel.set_xlabel("step", fontsize=9)
    panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, title="at last", title_fontsize=9
    )


def _explained(page: Page) -> list[str]:
    return [
        f"Accuracy of the child less that of its parent, {_shortened(str(page.parent))}, on the same probes.",
        *(["Of calibration it is the error, where less is better."] if page.gates.settings.get("calibration") else []),
        f"Each end of a bar holds with {page.confidence}% confidence; dashed: the least that the gate allows.",
    ]


def _unbounded(page: Page, groups: Sequence[Sequence[Row]]) -> list[str]:
    """The gates that have no row, each with its verdict."""
    drawn = {row.label for rows in groups for row in rows}
    others = [f"{gate.name} {gate.verdict}" for gate in page.gates.results if gate.name not in drawn]
    return [f"Without bounds: {', '.join(others)}."] if others else []


def _forest(panel: Axes, rows: Sequence[Row]) -> None:
    """A line for each row from the top down, its label at the left, its state and figures at the right."""
    panel.axvline(0, color=_SOFT, linewidth=1)
    for place, row in enumerate(rows):
        _difference(panel, place, row)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    figures = panel.secondary_yaxis("right")
    panel.set_yticks(range(len(rows)), [_shortened(row.label) for row in rows])
    figures.set_yticks(range(len(rows)), [f"{row.state}  {row.text}" for row in rows])
    for side in (panel, figures):
        side.tick_params(labelsize=9, axis="y", length=0)
        side.spines[:].set_visible(False)
    panel.tick_params(labelsize=9, axis="x", colors=_SOFT)


def _difference(panel: Axes, place: int, row: Row) -> None:
    marker, colour = _STYLES[row.state]
    # With other caps a bar would reach beyond its bounds.
    panel.plot([row.low, row.high], [place] * 2, color=colour, linewidth=2.5, solid_capstyle="butt", label="bounds")
    (point,) = panel.plot([row.value], [place], marker, color=colour, label="difference")
    point.set(markersize=10, markeredgecolor="white")
    if row.margin is not None:
        edge = [place - 0.45, place + 0.45]
        panel.plot([row.margin, row.margin], edge, color=_INK, linestyle="--", linewidth=1, label="margin")


def _routes(panel: Axes, routes: Sequence[Band]) -> None:
    for band in routes:
        panel.stairs(band.high, band.edges, baseline=band.low, fill=True, color=band.colour, label=band.text)
    panel.set_ylim(0, 1)
    panel.set_ylabel("share of the trained tokens", fontsize=9)


def _lines(panel: Axes, terms: Sequence[Curve], label: str) -> None:
    for term, style in zip(terms, cycle(("-", "--", ":")), strict=False):
        panel.stairs(term.values, term.edges, baseline=None, linestyle=style, linewidth=1.5, label=term.name)
    panel.set_ylabel(label, fontsize=9)


def _empty(page: Page, text: str, notes: Sequence[str]) -> Figure:
    """A picture that says why there is nothing to draw."""
    figure = _figure(page, 1.6, notes)
    figure.text(0.01, 0.5, text, fontsize=10, va="center")
    return figure


def _figure(page: Page, height: float, notes: Sequence[str]) -> Figure:
    """An empty picture with its title, and notes at its foot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    title = fill(f"{_shortened(page.child)}: {page.verdict}", 80)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=_INK, fontweight="bold")
    if notes:
        text = "\n".join(fill(note, 110) for note in notes)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color=_SOFT)
    return figure


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    # Without the version of matplotlib, which the file would otherwise name.
    figure.savefig(content, format="png", dpi=DOTS, metadata={"Software": None})
    return content.getvalue()


def _shortened(label: str) -> str:
    return label if len(label) <= _LETTERS else f"…{label[1 - _LETTERS :]}"
