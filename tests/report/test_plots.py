"""The pictures of a verdict: they show the numbers of the page, and the same numbers give the same bytes."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from ladder.gates import decide
from ladder.gates.measurements import Measurements
from ladder.manifest.schema import Gates
from ladder.report.charts import bands, forests
from ladder.report.plots import DOTS, WIDTH, gates_figure, pngs, teachers_figure, training_figure
from ladder.train.receipts import Receipt, Receipts
from tests.report.conftest import RIGHT, page, verdict, worth

ROUTES = {"gold": [(0, 0.25), (1, 0.5)], "blended": [(0, 0.75), (1, 0.5)], "skip": [(0, 0.0), (1, 0.0)]}
LOSSES = {"ce": [(0, 2.0), (1, 1.0)], "kd": [(0, 0.5), (1, float("nan"))], "regularizer": [(0, 0.0), (1, 0.0)]}
GENESIS = decide(Gates(), Measurements({}, RIGHT), None, [])


def lines(panel: Any, label: str) -> list[tuple[list[float], list[float]]]:
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
            for line in panel.get_lines() if line.get_label() == label]  # fmt: skip


def markers(panel: Any) -> list[str]:
    return [str(line.get_marker()) for line in panel.get_lines() if line.get_label() == "difference"]


def words(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_the_pictures_are_png_of_one_width_and_name_no_software() -> None:
    found = pngs(page(routes=ROUTES, losses=LOSSES))
    assert list(found) == ["gates.png", "training.png"]
    for content in found.values():
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width == WIDTH * DOTS and height > DOTS
        assert b"tEXt" not in content
    assert found == pngs(page(routes=ROUTES, losses=LOSSES))


def test_every_difference_is_drawn_where_it_lies() -> None:
    report = verdict(forgot=True)
    figure = gates_figure(page(gates=report))
    for panel, rows in zip(figure.axes, forests(report), strict=True):
        assert lines(panel, "bounds") == [([row.low, row.high], [place, place]) for place, row in enumerate(rows)]
        assert lines(panel, "difference") == [([row.value], [place]) for place, row in enumerate(rows)]
        assert [xs for xs, _ in lines(panel, "margin")] == [[row.margin, row.margin] for row in rows]
        assert [text.get_text() for text in panel.get_yticklabels()] == [row.label for row in rows]
        bottom, top = panel.get_ylim()
        assert top < 0 <= len(rows) - 1 < bottom


def test_who_failed_is_told_by_marker_and_word() -> None:
    first, second = gates_figure(page(gates=verdict(forgot=True))).axes
    assert (markers(first), markers(second)) == (["X", "o", "X"], ["o"])
    (figures,) = first.child_axes
    (recall, first_ancestor, second_ancestor), _ = forests(verdict(forgot=True))
    assert [text.get_text() for text in figures.get_yticklabels()] == [
        f"failed  {recall.text}",
        f"passed  {first_ancestor.text}",
        f"failed  {second_ancestor.text}",
    ]


def test_a_gate_without_bounds_is_named_with_its_verdict() -> None:
    said = words(gates_figure(page()))
    assert "Luna-G002: passed all gates" in said
    assert "less that of its parent, Luna-G001," in said
    assert "with 95% confidence" in said
    assert "Without bounds: tone not applicable, laws passed." in said


def test_a_recall_without_bounds_leaves_its_ancestors() -> None:
    report = verdict()
    torn = replace(report, results=(replace(report.results[0], low=None), *report.results[1:]))
    figure = gates_figure(page(gates=torn))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["Luna-G000", "Luna-G001"]
    assert "Without bounds: recall passed," in words(figure)


def test_a_genesis_says_that_there_is_no_difference() -> None:
    genesis = page(gates=GENESIS, parent=None, grandparent=None, line=[])
    figure = gates_figure(genesis)
    assert figure.axes == []
    assert "No difference to a parent was measured." in words(figure)
    assert "recall not applicable, generalize passed" in words(figure)
    assert "No steps were recorded." in words(training_figure(genesis))
    assert all(content.startswith(b"\x89PNG") for content in pngs(genesis).values())


def test_the_training_has_its_routes_stacked_and_its_losses() -> None:
    shares, losses = training_figure(page(routes=ROUTES, losses=LOSSES)).axes
    drawn = [patch.get_data() for patch in shares.patches]
    assert [list(data.values) for data in drawn] == [band.high for band in bands(ROUTES)]
    assert [list(data.baseline) for data in drawn] == [band.low for band in bands(ROUTES)]
    assert [list(data.edges) for data in drawn] == [[0, 1, 2]] * 2
    assert [text.get_text() for text in shares.get_legend().get_texts()] == ["blended 62%", "gold 38%"]
    assert [(term.get_label(), term.get_data().values[0]) for term in losses.patches] == [("ce", 2), ("kd", 0.5)]
    assert losses.get_xlabel() == "step"


def test_a_chart_without_figures_is_left_out() -> None:
    (only,) = training_figure(page(routes=ROUTES)).axes
    assert only.get_ylabel() == "share of the trained tokens"
    (only,) = training_figure(page(losses=LOSSES)).axes
    assert only.get_ylabel() == "terms of the loss, mean"


@pytest.mark.parametrize("ancestors", [1, 40])
def test_nothing_is_cut_off(ancestors: int) -> None:
    """The longest name that a family may have, and a long line: every text lies inside the picture."""
    family = "X" * 64
    asked = Measurements({f"{family}-G{index:03d}": RIGHT for index in range(ancestors)}, RIGHT)
    long = page(child=f"{family}-G100", parent=f"{family}-G099", gates=decide(Gates(), asked, asked, []))
    figure = gates_figure(long)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()


def test_teachers_have_a_picture_where_they_were_measured() -> None:
    found = pngs(page(worth=worth()))
    assert list(found) == ["gates.png", "training.png", "teachers.png"] and found == pngs(page(worth=worth()))
    harm, weight, throttle = teachers_figure(page(worth=worth())).axes
    assert [bar.get_width() for bar in harm.patches] == [-0.5, 0.25]
    left, right = harm.get_xlim()
    assert left == -right, "0 is in the middle"
    (figures,) = harm.child_axes
    assert [text.get_text() for text in figures.get_yticklabels()] == ["-0.500  helps", "+0.250  harms"]
    assert [line.get_label() for line in weight.patches] == ["parent 0.70", "docs/<b>.jsonl 0.30"]
    assert [list(line.get_data().values) for line in throttle.patches] == [[1.0, 0.5, 0.25, 0.75]]


def test_sources_of_which_nothing_was_measured_have_a_picture_that_says_so() -> None:
    receipts = Receipts()
    receipts.see(0, {"quiet": Receipt(3, 10)})
    assert "No source of a teacher taught anything." in words(teachers_figure(page(worth=receipts.summary())))


def test_calibration_and_temperatures_have_panels_where_they_were_measured() -> None:
    shown = page(
        losses=LOSSES, errors={"ece": [(0, 0.2), (1, 0.1)]}, temperatures={"temperature": [(0, 1.5), (1, 1.7)]}
    )
    losses, errors, temperatures = training_figure(shown).axes
    assert [panel.get_ylabel() for panel in (losses, errors, temperatures)] == [
        "terms of the loss, mean",
        "calibration error",
        "temperature, mean",
    ]
    assert [(line.get_label(), list(line.get_data().values)) for line in errors.patches] == [("ece", [0.2, 0.1])]
    assert [list(line.get_data().values) for line in temperatures.patches] == [[1.5, 1.7]]
