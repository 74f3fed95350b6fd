"""Data of a verdict's charts, shared by the page, the pictures and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import NamedTuple, TypeVar

from ladder.gates import GateReport, GateResult

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Values by name, each with its step."""

T = TypeVar("T")

_COLOURS = {
    "gold": "#d99a1c",
    "blended": "#2f6fb5",
    "teacher1": "#7ab0e0",
    "teacher2": "#1f8a8a",
    "dream": "#8a6fb5",
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
    where that is gated; each empty without a parent.

    A difference without finite bounds has no row.
    """
    drop = -float(gates.settings["recall"]["max_drop"])
    recall, own, *others = gates.results
    kept = _gate_row(recall)
    for name, one in gates.per_ancestor.items():
        kept += _row(name, _less(one.child, one.parent), one.low, one.high, drop, not one.fallen)
    gated = [gate for gate in others if gate.name == "calibration" and gates.settings.get("calibration")]
    return kept, _gate_row(own), *map(_gate_row, gated)


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
