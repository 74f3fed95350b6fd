"""The tree: gates besides the four have a column of their own."""

from __future__ import annotations

from datetime import UTC, datetime

from ladder.manifest import Name
from ladder.registry import Generation, Verdict
from ladder.report.lineage import lineage_text


def generation(index: int, metrics: dict[str, float], *failed: str) -> Generation:
    verdict = Verdict.REJECTED if failed else Verdict.PROMOTED
    nothing = dict.fromkeys(("manifest_digest", "parent", "parent_name", "grandparent", "grandparent_name"))
    return Generation(
        name=Name("Luna", index),
        attempt=1,
        digest=f"{index}" * 64,
        verdict=verdict,
        version=index,
        run_id="run",
        model_id="model",
        method="pretraining",
        failed_gates=failed,
        metrics=metrics,
        created=datetime(2024, 1, 1, tzinfo=UTC),
        is_head=False,
        **nothing,
    )


def test_a_further_gate_has_a_column_of_its_own() -> None:
    further = {"gate.metrics.tides_of_the_sea": 0.25, "gate.metrics.tides_of_the_sea.parent": 0.5}
    lines = lineage_text([generation(0, {"gate.recall": 0.9}), generation(1, further, "tides_of_the_sea")]).split("\n")
    assert lines[0].split()[2:] == [
        "recall",
        "generalize",
        "tone",
        "drift",
        "laws",
        "ece",
        "distinct",
        "tides_of_the_sea",
        "method",
    ]
    assert lines[1].split()[2:] == ["0.9", *["-"] * 6, "pretraining"]
    assert lines[2].split()[2:9] == [*["-"] * 6, "0.25"]
    assert lines[2].endswith("failed: tides_of_the_sea")
    assert len({line.index("pretraining") for line in lines[1:]} | {lines[0].index("method")}) == 1


def test_the_four_gates_always_have_theirs() -> None:
    head, _ = lineage_text([generation(0, {"gate.recall": 1.0, "gate.recall.Luna-G000": 1.0})]).split("\n")
    assert head.split()[2:] == ["recall", "generalize", "tone", "drift", "laws", "ece", "distinct", "method"]


def test_calibration_and_collapse_have_their_columns() -> None:
    measured = {"gate.recall": 0.9, "pulse.ece": 0.0312, "pulse.distinct_2": 0.64, "pulse.ece.parent": 0.5}
    head, line = lineage_text([generation(1, measured)]).split("\n")
    assert head.split()[-3:] == ["ece", "distinct", "method"]
    assert line.split()[2:] == ["0.9", "-", "-", "-", "0.0312", "0.64", "pretraining"]
