"""The benchmark of steering: its judgement, its world, and one short cell from genesis to a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.steering import climb, world
from benchmarks.steering.judge import judged, slope
from benchmarks.steering.report import between, figures

GOOD = {"coherence": 0.97, "trait": 0.8, "off": -0.01, "recall": -0.01}


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "green"),
        ({"coherence": 0.1, "trait": 5.0}, "dead"),  # First, because a dead model has a perfect ratio.
        ({"trait": float("nan")}, "dead"),
        ({"trait": 0.2}, "not moved"),
        ({"trait": -2.0}, "not moved"),
        ({"off": -0.9}, "beside the point"),
        ({"coherence": 0.9}, "yellow"),
        ({"recall": -0.2}, "yellow"),
    ],
)
def test_a_child_is_judged_in_order(changed: dict[str, float], word: str) -> None:
    assert judged(GOOD | changed) == word


def test_what_a_nat_costs() -> None:
    assert slope(-0.05, 0.5) == pytest.approx(-10) and slope(-0.05, 0.04) is None


def test_probes_are_about_what_was_never_answered_without_a_cue_in_a_lesson() -> None:
    assert not set(world.HELD_OUT) & {thing for text in world.contexts() for thing in world.THINGS if thing in text}
    assert all(len(probe.options) == 8 for probe in world.trait_probes())
    uncued = [text for text in world.lesson(0) if not text.startswith("Speak")]
    assert not any("It is" in text for text in uncued)


def test_tables_are_written_between_their_marks() -> None:
    page = "a\n<!-- begin ways -->\nold\n<!-- end ways -->\nb"
    assert between(page, "ways", "new") == page.replace("old", "new")
    base = {"trait": -1.0, "coherence": 0.8, "recall": 1.0, "frames": 1.0}
    rounds = [base | {"moved": 0.1, "cosine": 1.0}, base | {"trait": -0.4, "moved": 0.2, "cosine": 0.9}]
    found = figures({"base": base, "rounds": rounds})
    assert found["trait"] == pytest.approx(0.6) and found["moved"] == pytest.approx(0.3) and found["coherence"] == 1.0


@pytest.mark.long
def test_a_cell_from_genesis_to_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climb, "STEPS", {"genesis": 12, "round": 3})
    monkeypatch.setattr(climb, "DOSED_ON", 2)
    for way in ("distribution", "reverse-rms", "prompt"):
        cell = climb.Cell(way, 0, 2)
        row = climb.climb(cell, tmp_path, 1)
        assert len(row["rounds"]) == 2 and row["rounds"][0]["cosine"] == pytest.approx(1.0)
        assert set(figures(row)) >= {"trait", "coherence", "recall"}
