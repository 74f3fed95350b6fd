"""The tree: gates besides the four have a column of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ladder.manifest import Name
from ladder.registry import Generation, Verdict
from ladder.report.lineage import lineage_text


def generation(index: int, metrics: dict[str, float], *failed: str, **known: Any) -> Generation:
    verdict = Verdict.REJECTED if failed else Verdict.PROMOTED
    nothing = dict.fromkeys(("manifest_digest", "parent", "parent_name", "grandparent", "grandparent_name"))
    made = Generation(
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
    return replace(made, **known)


def descended(parents: Sequence[int | None]) -> list[Generation]:
    """One generation for each parent's index, named by where it stands."""
    known = ({} if up is None else {"parent": f"{up}" * 64, "parent_name": f"Luna-G{up:03d}"} for up in parents)
    return [generation(index, {}, **parent) for index, parent in enumerate(known)]


def tree(generations: Sequence[Generation]) -> list[str]:
    """The first column."""
    return [line.partition("  PROMOTED")[0].rstrip() for line in lineage_text(generations).split("\n")[1:]]


def test_the_longest_line_stays_at_its_depth_and_others_stand_before_it() -> None:
    """G000 has the children G001 (with G004), G002 and G003 (with G005 and G006)."""
    assert tree(descended([None, 0, 0, 0, 1, 3, 5])) == [
        "Luna-G000",
        "  - Luna-G002",
        "  - Luna-G001",
        "  - Luna-G004",
        "Luna-G003",
        "Luna-G005",
        "Luna-G006",
    ]


def test_a_generation_stands_once_where_others_have_its_digest() -> None:
    """As a child has that learned nothing; its parent would be its own child, by digest alone."""
    first, second, third = descended([None, 0, 1])
    equal = [first, replace(second, digest=first.digest), replace(third, parent=first.digest)]
    assert tree(equal) == ["Luna-G000", "Luna-G001", "Luna-G002"]
    (unnamed,) = [replace(equal[2], parent_name=None)]
    assert tree([*equal[:2], unnamed]) == ["Luna-G000", "  - Luna-G001", "Luna-G002"]


@pytest.mark.parametrize("rejected", [False, True])
def test_the_text_grows_with_the_number_of_generations(rejected: bool) -> None:
    """Of a line, and of one whose every child has a sibling that was rejected."""

    def text(count: int) -> str:
        parents = [None, *(up - up % 2 for up in range(count - 1))] if rejected else [None, *range(count - 1)]
        return lineage_text(descended(parents))

    few, many = text(500), text(4000)
    assert len(many.split("\n")) == 4001 and max(map(len, many.split("\n"))) < 120
    assert len(many) < 9 * len(few)


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


FIGURES = {
    "gate.recall": 0.975,
    "gate.generalize": 0.5,
    "gate.tone_drift": 0.0123,
    "pulse.ece": 0.1,
    "pulse.distinct_2": 1.0,
}


def family() -> list[Generation]:
    """A genesis, a child that failed three gates, and a second attempt that is HEAD."""
    method = "teacher_student_distillation"
    child = {"parent": "0" * 64, "parent_name": "Luna-G000", "method": method}
    failed = generation(1, FIGURES, "recall", "generalize", "tone", **child, pruned=datetime(2024, 2, 1, tzinfo=UTC))
    return [generation(0, FIGURES), failed, generation(1, FIGURES, **child, attempt=2, is_head=True)]


@pytest.mark.parametrize("width", [200, 110, 80, 60, 48])
def test_a_tree_is_as_wide_as_it_may_be(width: int) -> None:
    text = lineage_text(family(), width)
    lines = text.split("\n")
    assert max(map(len, lines)) <= width
    assert [line.split()[:2] for line in lines if "Luna-G" in line] == [
        ["Luna-G000", "PROMOTED"],
        ["-", "Luna-G001"],
        ["Luna-G001.2", "PROMOTED"],
    ]
    assert "failed: recall, generalize, tone" in text and "  pruned" in text and text.count("<- HEAD") == 1
    shown = [name for name in ("recall", "general", "tone", "laws", "ece", "distinct") if name in lines[0]]
    assert len(shown) == {80: 4, 60: 1, 48: 0}.get(width, 6)
    assert (f"\nfurther figures ({6 - len(shown)}): --json" in text) is (len(shown) < 6)


def test_a_wide_tree_is_what_it_was() -> None:
    assert lineage_text(family(), 200) == lineage_text(family())
    header, first, second, _ = lineage_text(family()).split("\n")
    assert header.split("  ")[0] == "generation" and first.endswith("0.1           1  pretraining")
    assert second.endswith("  teacher_student_distillation  failed: recall, generalize, tone  pruned")


def test_no_room_at_all_still_names_everybody() -> None:
    assert [line.split()[0] for line in lineage_text(family(), 5).split("\n")][1] == "Luna-G000"
