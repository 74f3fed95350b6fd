"""The readout gate: what moved beyond its limit and beyond chance rejects, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ladder.concepts.shifts import shifts_of
from ladder.errors import GateError
from ladder.gates import GateReport, Measurements, decide
from ladder.manifest.schema import Gates

CONCEPTS = ("calm", "glad")


def readings(seed: int, moved: float = 0.0, prompts: int = 30) -> tuple[list[Any], list[Any]]:
    """A child's and a parent's, of two layers of different scales; glad moves by so many deviations."""
    draw = np.random.default_rng(seed)
    scale = np.array([[2.0, 5.0], [30.0, 70.0]])
    parent = draw.normal(size=(prompts, 2, 2)) * scale + 100
    child = parent + draw.normal(size=parent.shape) * scale * 0.3
    child[:, :, 1] += moved * parent[:, :, 1].std(0, ddof=1)
    return tuple([tuple(map(tuple, one)) for one in side.tolist()] for side in (child, parent))


def test_a_shift_is_the_paired_mean_in_the_parents_deviations() -> None:
    ours, theirs = readings(0, 1.0)
    child, parent = np.array(ours), np.array(theirs)
    each = ((child - parent) / parent.std(0, ddof=1)).mean(1)[:, 1]
    reach = stats.sem(each) * stats.t.ppf(1 - 0.05 / 4, 29)
    found = shifts_of(CONCEPTS, ours, theirs, 0.95, 0.5, {})[1]
    assert (found.value, found.low, found.high) == pytest.approx(
        (each.mean(), each.mean() - reach, each.mean() + reach), abs=1e-12
    )
    assert found.is_beyond and found.n == 30


def test_equal_models_are_hardly_ever_beyond_whatever_the_limit() -> None:
    beyond = [any(one.is_beyond for one in shifts_of(CONCEPTS, *readings(seed), 0.95, 1e-6, {})) for seed in range(400)]
    assert 0 < sum(beyond) <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_what_says_nothing_is_left_out_and_too_little_is_refused() -> None:
    ours, theirs = readings(1, prompts=9)
    assert shifts_of(CONCEPTS, [(), *ours[1:]], theirs, 0.95, 0.5, {})[0].n == 8
    with pytest.raises(GateError, match="found 7 prompts that both answered"):
        shifts_of(CONCEPTS, [(), *ours[1:]], [*theirs[:8], ()], 0.95, 0.5, {})
    with pytest.raises(GateError, match="readings of calm are the same for every prompt"):
        shifts_of(CONCEPTS, ours, [theirs[0]] * 9, 0.95, 0.5, {})


def decided(moved: float, **readout: Any) -> GateReport:
    gates = Gates.model_validate(
        {"tone": {"reference": "parent", "measure": "readout", "readout": {"vectors": "v", **readout}}}
    )
    child, parent = (Measurements(readings=tuple(side), concepts=CONCEPTS) for side in readings(2, moved))
    return decide(gates, child, parent, ())


def test_the_gate_rejects_a_child_that_moved_too_far() -> None:
    report = decided(1.0)
    tone = report.results[2]
    assert not tone.passed and tone.threshold == 0.5 and "glad +0.9" in tone.detail and "calm" not in tone.detail
    assert report.metrics()["readout.glad"] == pytest.approx(tone.value) and "readout.calm.low" in report.metrics()
    assert GateReport.from_dict(report.to_dict()) == report
    assert decided(0.2).results[2].passed and decided(-1.0).results[2].passed is False
    assert decided(1.0, limits={"glad": 1.5}).results[2].passed
    told = decided(1.0, max_shift=None)
    assert told.results[2].passed and told.shifts[1].limit is None and "no limit" in told.results[2].detail
    assert decided(1.0, max_shift=None, limits={"calm": 0.1}).results[2].passed


def test_without_a_parent_or_readings_it_fails() -> None:
    gates = Gates.model_validate({"tone": {"reference": "parent", "measure": "readout", "readout": {"vectors": "v"}}})
    child = Measurements(readings=tuple(readings(3)[0]), concepts=CONCEPTS)
    assert (
        decide(gates, child, None, ()).failed == ("generalize", "tone")
        or "tone" in decide(gates, child, None, ()).failed
    )
    nothing = decide(gates, Measurements(concepts=CONCEPTS), Measurements(concepts=CONCEPTS), ())
    assert "found 0 prompts" in nothing.results[2].detail and not nothing.results[2].passed


def test_a_report_without_it_is_as_it_was() -> None:
    report = decide(Gates(), Measurements(), None, ())
    assert "shifts" not in report.to_dict() and "readout" not in report.settings["tone"]
