"""What the charts of a verdict show, before anybody draws it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ladder.gates import decide
from ladder.gates.measurements import Measurements
from ladder.manifest.schema import Gates
from ladder.report.charts import DRAWN, Scale, bands, curves, forests, harmed_most, sources, taught_most, tracks
from ladder.train.receipts import Receipt, Receipts
from tests.report.conftest import RIGHT, WRONG, verdict, worth


def test_the_forest_has_recall_its_ancestors_and_generalize() -> None:
    recall, own = forests(verdict(forgot=True))
    assert [(row.label, row.state, round(row.value, 3)) for row in recall] == [
        ("recall", "failed", -0.5),
        ("Luna-G000", "passed", 0.0),
        ("Luna-G001", "failed", -1.0),
    ]
    assert [(row.label, row.value, row.margin) for row in own] == [("generalize", 1.0, 0.02)]
    assert all(row.low <= row.value <= row.high for row in (*recall, *own))


def test_the_scale_holds_every_row_and_zero() -> None:
    recall, _ = forests(verdict(forgot=True))
    scale = Scale.of(recall)
    places = [scale(end) for row in recall for end in (row.low, row.high, row.margin or 0.0, 0.0)]
    assert 0 < min(places) < 5 < 90 < max(places) < 100


def test_the_line_of_a_gate_is_what_it_asked_for() -> None:
    """``minimum`` can ask for more than the drop from the parent allows."""
    strict = Gates.model_validate({"recall": {"minimum": 0.9}, "generalize": {"min_gain": 0.1}})
    half = RIGHT[:20] + WRONG[:20]
    report = decide(strict, Measurements({"A-G000": half}, RIGHT), Measurements({"A-G000": half}, half), [])
    (recall, ancestor), (own,) = forests(report)
    assert (recall.margin, ancestor.margin, own.margin) == pytest.approx((0.4, -0.05, 0.1))
    assert (recall.state, ancestor.state) == ("failed", "passed")


@pytest.mark.parametrize("change", [{"low": None}, {"high": float("nan")}, {"value": None}, {"parent_value": None}])
def test_a_difference_without_finite_bounds_has_no_row(change: dict[str, float | None]) -> None:
    report = verdict()
    changed = (replace(report.results[0], **change), *report.results[1:])
    recall, own = forests(replace(report, results=changed))
    assert [row.label for row in (*recall, *own)] == ["Luna-G000", "Luna-G001", "generalize"]


def test_a_curve_keeps_its_steps() -> None:
    """A run that was resumed without its first metrics begins later."""
    (curve,) = curves({"ce": [(step, float(step)) for step in range(10, 15)], "kd": [(10, 0.0)], "none": []}, most=2)
    assert (curve.name, curve.edges, curve.values, curve.mean) == ("ce", [10, 12, 15], [10.5, 13.0], 12.0)


def test_bands_lie_on_one_another() -> None:
    shares = {"skip": [(0, 0.5)], "gold": [(0, 0.25)], "js_uncertain": [(0, 0.1)], "dream": [(0, 0.25)]}
    assert [(band.low, band.high, band.text) for band in bands(shares)] == [
        ([0.0], [0.25], "gold 25%"),
        ([0.25], [0.5], "dream 25%"),
        ([0.5], [1.0], "skip 50%"),
    ]


def test_sources_stand_by_teacher_and_say_what_they_were_worth() -> None:
    parent, docs, quiet = sources(worth())
    assert parent.cells == ("parent", "1", "80.0%", "0.75", "0.60", "0.70", "1.00", "-0.500", "-0.500")
    assert docs.cells == ("docs/<b>.jsonl", "3", "50.0%", "0.25", "0.40", "0.30", "0.75", "+0.250", "+0.750")
    assert quiet.cells == ("docs/quiet.jsonl", "3", "0.0%", "-", "-", "-", "1.00", "-", "-")
    assert [one.verdict for one in (parent, docs, quiet)] == ["helps", "harms", "not measured"]
    assert docs._replace(harm=0.0004).verdict == "no matter"


def test_a_source_has_one_colour_and_only_what_fell_has_a_throttle() -> None:
    charts = tracks(sources(worth()))
    assert [track.text for track in charts["weight"]] == ["parent 0.70", "docs/<b>.jsonl 0.30"]
    (throttle,) = charts["throttle"]
    assert throttle.values == [1.0, 0.5, 0.25, 0.75] and throttle.edges == [0, 1, 2, 3, 4]
    assert throttle.colour == charts["weight"][1].colour != charts["weight"][0].colour


def test_of_many_sources_those_that_matter_are_drawn() -> None:
    """What taught most, what harmed most however little it taught, and what was throttled most."""
    receipts = Receipts()
    many = {f"{n:02d}": Receipt(3, 100, 90 - n, 9.0, 0.01, 1, 1.0) for n in range(20)}
    receipts.see(0, many | {"19": Receipt(3, 100, 1, 0.1, 9.0, 1, 0.05)})
    found = sources(receipts.summary())
    assert [one.name for one in taught_most(found)] == [f"{n:02d}" for n in range(DRAWN)]
    assert len(harmed_most(found)) == DRAWN and harmed_most(found)[-1].name == "19"
    assert [track.text for track in tracks(found)["throttle"]] == ["19 0.05"]
    assert sources({}) == [] and tracks([]) == {}
