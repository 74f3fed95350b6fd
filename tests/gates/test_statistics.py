"""Probes that stand or fall together: their bounds, and how often they are wrong."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from ladder.errors import DataError
from ladder.exam import Exam
from ladder.exam.exam import Answers, Probe, read_probes, write_probes
from ladder.gates import decide
from ladder.gates.measurements import OWN, Measurements, bounds_of, measure, retention_of
from ladder.gates.statistics import Interval, alone, grouped_interval, groups_of
from ladder.manifest.schema import Gates

WORDINGS = tuple("abcdefgh")


def test_a_small_example_by_hand() -> None:
    """Groups a (0, 1), b (1, 1), c (0, -1, 0); mean 2/7; totals less their expectations 3/7, 10/7, -13/7."""
    found = grouped_interval([([0, 1, 1, 1, 0, -1, 0], tuple("aabbccc"))], 0.95)
    error = sqrt(3 / 2 * ((3 / 7) ** 2 + (10 / 7) ** 2 + (13 / 7) ** 2) / 49)
    reach = t.ppf(0.95, 2) * error
    assert found.low == pytest.approx(max(-1, 2 / 7 - reach)) and found.high == pytest.approx(min(1, 2 / 7 + reach))


def test_probes_by_themselves_have_the_plain_standard_error() -> None:
    differences = [0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0]
    found = grouped_interval([(differences, alone(8))], 0.9)
    reach = t.ppf(0.9, 7) * np.std(differences, ddof=1) / sqrt(8)
    assert (found.low, found.high) == pytest.approx((0.25 - reach, 0.25 + reach))


def test_asking_the_same_again_tells_nothing_new() -> None:
    once = grouped_interval([([1, 0, 1, 0], tuple("abcd"))], 0.95)
    often = grouped_interval([([1, 0, 1, 0] * 50, tuple("abcd" * 50))], 0.95)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_one_group_is_one_observation() -> None:
    assert grouped_interval([([1.0] * 40, ("a",) * 40)], 0.95) == Interval(-1.0, 1.0)
    two = [([1.0, 0.0], ("a", "b")), ([1.0, 1.0], ("a", "a"))]
    assert grouped_interval(two, 0.95) == Interval(-1.0, 1.0)


def test_strata_weigh_the_same() -> None:
    wide, still = ([1.0, -1.0] * 4, alone(8)), ([0.0] * 80, alone(80))
    both, one = grouped_interval([wide, still], 0.95), grouped_interval([wide], 0.95)
    reach = t.ppf(0.95, 86) * one.high / t.ppf(0.95, 7) / 2
    assert both.high == pytest.approx(reach) and both.low == pytest.approx(-reach)


def test_a_gain_in_one_wording_is_no_gain() -> None:
    """Forty of forty answers of one wording of eight are won, and nothing else changes."""
    parent = (0.0,) * 320
    child, groups = (1.0,) * 40 + (0.0,) * 280, tuple(wording for wording in WORDINGS for _ in range(40))
    apart = decide(Gates(), Measurements(generalize=child), Measurements(generalize=parent), [])
    asked = Measurements(generalize=child, groups={OWN: groups})
    together = decide(Gates(), asked, Measurements(generalize=parent), [])
    assert apart.results[1].passed and not together.results[1].passed
    assert "320 probes in 8 groups" in together.results[1].detail
    assert apart.results[1].low > 0 > together.results[1].low  # type: ignore[operator]


def test_a_gain_in_every_wording_is_one() -> None:
    groups = {OWN: tuple(WORDINGS * 5)}
    child = Measurements(generalize=(1.0,) * 36 + (0.0,) * 4, groups=groups)
    assert decide(Gates(), child, Measurements(generalize=(0.0,) * 40), []).results[1].passed


def test_an_ancestor_is_judged_by_its_groups_too() -> None:
    before, after = {"A-G000": (1.0,) * 40}, {"A-G000": (0.0,) * 10 + (1.0,) * 30}
    groups = {"A-G000": ("a",) * 10 + tuple(WORDINGS[1:4] * 10)}
    assert retention_of(Gates(), after, before, {})["A-G000"].fallen
    assert not retention_of(Gates(), after, before, {}, groups)["A-G000"].fallen
    wide, narrow = bounds_of(after, before, 0.95, groups), bounds_of(after, before, 0.95)
    assert wide is not None and narrow is not None and wide.low <= narrow.low and wide.high > narrow.high


def test_how_often_noise_seems_a_gain() -> None:
    """Wordings move by themselves (standard deviation 0.15) and nothing is gained on average: bounds over probes are
    wrong several times as often as they say, those over groups are not."""
    draw, wrong = np.random.default_rng(0), {"probes": 0, "groups": 0}
    groups = {OWN: tuple(wording for wording in WORDINGS for _ in range(30))}
    for _ in range(300):
        shift = np.repeat(draw.normal(0, 0.15, len(WORDINGS)), 30)
        before = draw.random(240) < 0.5
        after = draw.random(240) < np.clip(0.5 + shift, 0, 1)
        ours, theirs = ({OWN: tuple(scores.astype(float).tolist())} for scores in (after, before))
        for name, given in (("probes", None), ("groups", groups)):
            bounds = bounds_of(ours, theirs, 0.95, given)
            assert bounds is not None
            wrong[name] += bounds.low > 0
    assert wrong["groups"] <= 0.07 * 300 < 0.1 * 300 < wrong["probes"], wrong


def test_groups_come_from_the_probes_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"{wording} {number}?", "answer": "x", "group": wording} for wording in "ab" for number in "12"]
    path = tmp_path / "probes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "c?", "answer": "x"}]))
    probes = read_probes(path)
    assert [probe.group for probe in probes] == ["a", "a", "b", "b", ""]
    assert len(set(groups_of(probes))) == 3 and groups_of(probes[4:]) == ()
    write_probes(tmp_path / "again.jsonl", probes)
    assert read_probes(tmp_path / "again.jsonl") == probes
    exam = Exam(recall={"A-G000": tuple(probes[4:])}, generalize=tuple(probes))
    found = measure(exam, Answers({"A-G000": ("x",)}, ("x",) * 5, (), (), "d"), None)
    assert found.groups == {OWN: groups_of(probes)}


def test_a_group_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text('{"prompt": "a?", "answer": "x", "group": 3}\n')
    with pytest.raises(DataError, match="group"):
        read_probes(path)


def test_a_probe_without_group_is_written_as_before(tmp_path: Path) -> None:
    write_probes(tmp_path / "probes.jsonl", [Probe("a?", "b")])
    assert "group" not in (tmp_path / "probes.jsonl").read_text()
