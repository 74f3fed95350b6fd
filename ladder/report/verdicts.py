"""A verdict as plain text: each gate in a sentence, the differences to the parent as a plot, lost answers."""

from __future__ import annotations

from collections.abc import Iterable

from ladder.gates import GateReport, GateResult
from ladder.gates.regressions import Comparison
from ladder.report.charts import Row, Scale, forests

_WIDTH = 41
_SHOWN = 60
"""Characters of a prompt or answer."""


def gate_line(result: GateResult) -> str:
    """One gate in a sentence."""
    mark = ("passed" if result.passed else "FAILED") if result.applicable else "-"
    return f"{mark} {result.name}: {result.detail}"


def verdict_text(report: GateReport, comparison: Comparison | None) -> str:
    """Gates, forest plot, and what was lost."""
    plots = [line for rows in forests(report) for line in _forest(rows)]
    lost = comparison_text(comparison) if comparison else ""
    parts = ["\n".join(map(gate_line, report.results)), "\n".join(plots), lost]
    return "\n\n".join(part for part in parts if part)


def comparison_text(comparison: Comparison) -> str:
    """How many answers were lost and gained, and the worst of those lost."""
    lines = [f"of {comparison.n} probes {comparison.lost} lost and {comparison.gained} gained"]
    for one in comparison.worst:
        lines += [f"  {one.part}: {_short(one.prompt)}"]
        lines += [f"    expected {_short(one.expected)}, was {_short(one.parent)}, is {_short(one.child)}"]
    return "\n".join(lines)


def _forest(rows: list[Row]) -> Iterable[str]:
    """A line a row: ``|`` is no difference, ``:`` what may be lost, ``o`` the figure between its bounds."""
    scale, width = Scale.of(rows), max((len(row.label) for row in rows), default=0)
    for row in rows:
        track = [" "] * _WIDTH
        low, high = _place(scale, row.low), _place(scale, row.high)
        track[low : high + 1] = "-" * (high + 1 - low)
        if row.margin is not None:
            track[_place(scale, row.margin)] = ":"
        track[_place(scale, 0.0)] = "|"
        track[_place(scale, row.value)] = "o"
        yield f"{row.label:<{width}}  {''.join(track)}  {row.text}"


def _place(scale: Scale, value: float) -> int:
    return min(_WIDTH - 1, int(scale(value) / 100 * _WIDTH))


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
