"""The family tree as text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ladder.report.lineage import lineage_text


def generation(ref: str, parent: str | None, **metrics: float) -> Any:
    usual = {"verdict": "PROMOTED", "method": "pretraining", "failed_gates": (), "is_head": False}
    return SimpleNamespace(ref=ref, digest=ref, parent=parent, metrics=metrics, **usual)


def test_calibration_and_collapse_have_their_columns() -> None:
    measured = {"gate.recall": 0.9, "pulse.ece": 0.0312, "pulse.distinct_2": 0.64, "pulse.ece.parent": 0.5}
    head, genesis, child = lineage_text(
        [generation("Luna-G000", None), generation("Luna-G001", "Luna-G000", **measured)]
    ).splitlines()
    assert head.split()[-3:] == ["ece", "distinct", "method"]
    assert genesis.split() == ["Luna-G000", "PROMOTED", *["-"] * 6, "pretraining"]
    assert child.split() == ["Luna-G001", "PROMOTED", "0.9", "-", "-", "-", "0.0312", "0.64", "pretraining"]
