"""Data of a verdict's charts, shared by the page, the pictures and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import copysign, isfinite
from typing import Any, NamedTuple, TypeVar

from ladder.gates import GateReport, GateResult, Shift

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Values by name, each with its step."""

T = TypeVar("T")

_COLOURS = {
    "gold": "#d99a1c",
    "blended": "#2f6fb5",
    "teacher1": "#7ab0e0",
    "teacher2": "#1f8a8a",
    "dream": "#8a6fb5",
    "written": "#c0507a",
    "skip": "#c4cad4",
}
"""Routes from the bottom of the chart to its top."""


class Row(NamedTuple):
    """A line of the forest plot: a difference (-1 to 1), its bounds, and the least that its gate allows."""

    label: str
    value: float
    low: float
    high: float
    margin: float | None
    state: str

    @property
    def text(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def forests(gates: GateReport) -> tuple[list[Row], ...]:
    """Recall over all ancestors and on each, generalize, which may differ by much more, and the error of calibration
    where that is gated; each empty without a parent. Last the concepts that moved farthest inside, where that is read.

    A difference without finite bounds has no row.
    """
    drop = -float(gates.settings["recall"]["max_drop"])
    recall, own, *others = gates.results
    kept = _gate_row(recall)
    for name, one in gates.per_ancestor.items():
        kept += _row(name, _less(one.child, one.parent), one.low, one.high, drop, not one.fallen)
    gated = [gate for gate in others if gate.name == "calibration" and gates.settings.get("calibration")]
    return kept, _gate_row(own), *map(_gate_row, gated), *([_shift_rows(gates.shifts)] if gates.shifts else [])


CONCEPTS = 12
"""Concepts that a forest shows, those that moved farthest."""


def _shift_rows(shifts: Sequence[Shift]) -> list[Row]:
    """In deviations of the parent's readings, with the limit on the side to which a concept moved."""
    farthest = sorted(shifts, key=lambda one: -abs(one.value))[:CONCEPTS]
    rows = []
    for one in farthest:
        margin = None if one.limit is None else copysign(one.limit, one.value)
        rows += _row(one.concept, one.value, one.low, one.high, margin, not one.is_beyond)
    return rows


def _gate_row(gate: GateResult) -> list[Row]:
    value, margin = _less(gate.value, gate.parent_value), _less(gate.threshold, gate.parent_value)
    return _row(gate.name, value, gate.low, gate.high, margin, gate.passed)


def _row(
    label: str, value: float | None, low: float | None, high: float | None, margin: float | None, passed: bool
) -> list[Row]:
    if value is None or low is None or high is None or not all(map(isfinite, (value, low, high))):
        return []
    return [Row(label, value, low, high, margin, "passed" if passed else "failed")]


def _less(figure: float | None, parent: float | None) -> float | None:
    return None if figure is None or parent is None else figure - parent


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


class Curve(NamedTuple):
    """A value over the steps of a training, as means over stretches of it.

    ``edges`` are the first step of each stretch and the step after the last: one more than ``values``.
    """

    name: str
    edges: list[int]
    values: list[float]
    mean: float


def curves(series: Series, most: int = 200) -> list[Curve]:
    """Each series over at most ``most`` stretches of equal length; those that are always 0 are left out."""
    return [_curve(name, points, most) for name, points in series.items() if any(value for _, value in points)]


def _curve(name: str, points: Sequence[tuple[int, float]], most: int) -> Curve:
    steps, values = zip(*points, strict=True)
    edges = [stretch[0] for stretch in _stretches(steps, most)]
    means = [sum(stretch) / len(stretch) for stretch in _stretches(values, most)]
    return Curve(name, [*edges, steps[-1] + 1], means, sum(values) / len(values))


def _stretches(values: Sequence[T], most: int) -> list[Sequence[T]]:
    count = min(most, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    return [values[start:end] for start, end in pairwise(edges)]


class Band(NamedTuple):
    """One route of the stacked chart: in each stretch of ``edges`` the shares from ``low`` to ``high``."""

    edges: list[int]
    low: list[float]
    high: list[float]
    colour: str
    text: str


def bands(routes: Series, most: int = 200) -> list[Band]:
    """Shares of the routes, stacked from the bottom to the top; ``text`` is what the legend says."""
    base, found = [0.0] * most, []
    for curve in curves({name: routes.get(name, ()) for name in _COLOURS}, most):
        top = [low + share for low, share in zip(base, curve.values, strict=False)]
        text = f"{curve.name} {curve.mean:.0%}"
        found.append(Band(curve.edges, base[: len(top)], top, _COLOURS[curve.name], text))
        base = top
    return found


Worth = Mapping[str, Mapping[str, Any]]
"""What each source of the teachers was worth, as a report keeps it (``ladder.train.receipts.Receipts.summary``)."""
DRAWN = 8
"""Sources that a chart draws; tables name more."""
_LINES = ("#2f6fb5", "#d99a1c", "#1f8a8a", "#b3261e", "#8a6fb5", "#5b8c2a", "#c2608f", "#5b6577")
_UNMOVED = 0.0005
"""Nats below which a harm is none: what is shown of it is 0.000."""


class Source(NamedTuple):
    """What one source was worth over a run.

    ``taught``, ``weight`` and ``throttle`` lie between 0 and 1; ``harm`` and ``error`` are nats. ``weights`` and
    ``throttles`` are the same over time, by the first step of each stretch, which has ``width`` steps.
    """

    name: str
    teacher: int
    taught: float
    weight: float | None
    harm: float | None
    throttle: float
    error: float | None
    weights: list[tuple[int, float]]
    throttles: list[tuple[int, float]]
    width: int

    @property
    def verdict(self) -> str:
        """What its harm says of it."""
        if self.harm is None or abs(self.harm) < _UNMOVED:
            return "no matter" if self.harm is not None else "not measured"
        return "harms" if self.harm > 0 else "helps"

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of its table, as ``SOURCE_COLUMNS`` says."""
        begun, ended = (f"{self.weights[place][1]:.2f}" if self.weights else "-" for place in (0, -1))
        known = zip((self.weight, self.harm, self.error), (".2f", "+.3f", "+.3f"), strict=True)
        weight, harm, error = ("-" if value is None else f"{value:{form}}" for value, form in known)
        numbers = (f"{self.taught:.1%}", weight, begun, ended, f"{self.throttle:.2f}", harm, error)
        return (self.name, str(self.teacher), *numbers)


SOURCE_COLUMNS = ("source", "teacher", "taught", "weight", "at first", "at last", "throttle", "harm", "error")


def sources(worth: Worth) -> list[Source]:
    """All sources, each teacher's together, those first that taught most."""
    found = [_source(name, one) for name, one in worth.items()]
    return sorted(found, key=lambda one: (one.teacher, -one.taught, one.name))


def _source(name: str, one: Mapping[str, Any]) -> Source:
    over_time = one["over_time"]
    weights, throttles = (
        [(part["step"], part[figure]) for part in over_time if part.get(figure) is not None]
        for figure in ("weight", "throttle")
    )
    steps = [part["step"] for part in over_time]
    width = min((later - earlier for earlier, later in pairwise(steps)), default=1)
    figures = (one["taught"], one.get("weight"), one.get("harm"), one["throttle"], one.get("error"))
    return Source(name, one["teacher"], *figures, weights, throttles, width)


def taught_most(found: Sequence[Source]) -> list[Source]:
    """The ``DRAWN`` sources that taught most, in their order."""
    most = sorted(found, key=lambda one: -one.taught)[:DRAWN]
    return [one for one in found if one in most]


def harmed_most(found: Sequence[Source]) -> list[Source]:
    """The ``DRAWN`` sources with the largest measured harms, whether they harm or help, in their order."""
    most = sorted((one for one in found if one.harm is not None), key=lambda one: -abs(one.harm or 0.0))[:DRAWN]
    return [one for one in found if one in most]


class Track(NamedTuple):
    """A figure of a source over the steps (0 to 1): each value holds from its edge up to the next one."""

    colour: str
    text: str
    edges: list[int]
    values: list[float]


def tracks(found: Sequence[Source]) -> dict[str, list[Track]]:
    """By figure: the ``weight`` of the sources that taught most, and the ``throttle`` of those that fell the lowest. A
    source has one colour in both; a figure that nobody has is left out."""
    fell = [one for one in found if any(value < 1 for _, value in one.throttles)]
    lowest = sorted(fell, key=lambda one: min(value for _, value in one.throttles))[:DRAWN]
    charts = {
        "weight": [(one, one.weights) for one in taught_most(found) if one.weights],
        "throttle": [(one, one.throttles) for one in fell if one in lowest],
    }
    colours = {one.name: _LINES[place % len(_LINES)] for place, one in enumerate(found)}
    return {
        figure: [_track(colours[one.name], one, line) for one, line in shown]
        for figure, shown in charts.items()
        if shown
    }


def _track(colour: str, one: Source, line: Sequence[tuple[int, float]]) -> Track:
    steps, values = map(list, zip(*line, strict=True))
    return Track(colour, f"{one.name} {values[-1]:.2f}", [*steps, steps[-1] + one.width], values)
