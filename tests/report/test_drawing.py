"""Axes and lines of the charts on a page."""

from __future__ import annotations

import pytest

from ladder.report.charts import Curve
from ladder.report.drawing import across, curve_chart, rounds, up


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 2.65, [0, 1, 2, 3]),
        (0, 0.0031, [0, 0.001, 0.002, 0.003, 0.004]),
        (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]),
        (3, 3, [0, 5]),
        (0, 0, [0, 1]),
        (0, 12345, [0, 5000, 10000, 15000]),
    ],
)
def test_an_axis_has_round_numbers_that_hold_all_values(low: float, high: float, expected: list[float]) -> None:
    assert rounds(low, high) == expected


def test_ticks_lie_where_the_values_are_drawn() -> None:
    assert [(tick.place, tick.text) for tick in up([0.0, 0.5, 1.0])] == [(98, "0"), (50, "0.5"), (2, "1")]
    assert [(tick.place, tick.text) for tick in across(1000, 2)] == [(0, "0"), (50, "500"), (100, "1,000")]
    assert [tick.text for tick in across(0)] == ["0"] and [tick.text for tick in across(1)] == ["0", "1"]


def test_a_curve_of_one_step_and_one_below_zero_can_be_drawn() -> None:
    one = curve_chart("one", [Curve("kd", [0, 1], [0.5], 0.5)])
    assert one.layers[0].points == "50.00,18.00", "the axis ends at 0.6"
    below = curve_chart("gain", [Curve("gain", [0, 1, 2], [-1.0, 1.0], 0.0)])
    assert below.layers[0].points == "25.00,98.00 75.00,2.00"
    assert below.alt == "gain by step: gain -1 at first, 1 at last"
