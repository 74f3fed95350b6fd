"""What an exam can tell apart is what the decision then tells apart, on either side of each number."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.exam.exam import Kind, Probe
from ladder.gates.decision import decide
from ladder.gates.detectable import (
    Detectable,
    Fewest,
    detectable,
    fewest_gained,
    fewest_lost,
    passes_unchanged,
    warnings_of,
)
from ladder.gates.measurements import Measurements
from ladder.manifest.schema import Gates


def gates_of(**sections: Any) -> Gates:
    return Gates.model_validate(sections)


def asked(n: int, kind: Kind = "contains") -> list[Probe]:
    return [Probe(f"who is {number}?", "luna", kind) for number in range(n)]


def scores(right: int, n: int) -> tuple[float, ...]:
    return (1.0,) * right + (0.0,) * (n - right)


def passes(gate: str, gates: Gates, child: Measurements, parent: Measurements) -> bool:
    return gate not in decide(gates, child, parent, []).failed


def gains(gates: Gates, gained: int, n: int) -> bool:
    """Whether generalize passes a child that gained some of n answers. The parent knows two besides, and one more is
    beyond both, so that the ceiling is out of reach."""
    own = n - 3
    child, parent = scores(2, 3) + scores(gained, own), scores(2, 3) + scores(0, own)
    return passes("generalize", gates, Measurements(generalize=child), Measurements(generalize=parent))


@pytest.mark.parametrize("n", [9, 12, 40, 400])
@pytest.mark.parametrize(
    "settings",
    [{}, {"generalize": {"min_gain": 0.1}}, {"generalize": {"evidence": "point"}}, {"confidence": 0.8}],
)
def test_the_smallest_gain_passes_and_one_less_does_not(settings: dict[str, Any], n: int) -> None:
    gates = gates_of(**settings)
    found = fewest_gained(gates, n)
    assert found.probes == n and found.answers is not None
    assert gains(gates, found.answers, n) and not gains(gates, found.answers - 1, n)


def test_a_gain_is_found_where_the_manifest_allows_a_loss() -> None:
    """Of 400 probes a loss of 0.05 is ruled out where nothing changed, of 40 it is not."""
    gates = gates_of(generalize={"min_gain": -0.05})
    assert fewest_gained(gates, 400).answers == 0 and gains(gates, 0, 400)
    few = fewest_gained(gates, 40).answers
    assert few and gains(gates, few, 40) and not gains(gates, few - 1, 40)


@pytest.mark.parametrize(("n", "answers"), [(1, None), (4, None), (5, 5), (6, 6), (40, 6)])
def test_known_gains_by_default(n: int, answers: int | None) -> None:
    """Beside one lost answer that chance adds, five of five gained are no chance and four of four are."""
    assert fewest_gained(Gates(), n) == Fewest(n, answers)
    assert fewest_gained(gates_of(generalize={"evidence": "point"}), n) == Fewest(n, 1)


@pytest.mark.parametrize(("n", "ancestors"), [(12, 1), (45, 1), (45, 8), (300, 3)])
def test_an_ancestor_is_forgotten_from_there_on(n: int, ancestors: int) -> None:
    gates = gates_of(recall={"max_drop": 0.05})
    lost = fewest_lost(gates, n, ancestors).answers
    assert lost is not None

    def forgets(answers: int) -> bool:
        before = {f"Luna-G{number:03}": scores(n, n) for number in range(ancestors)}
        report = decide(gates, Measurements(before | {"Luna-G000": scores(n - answers, n)}), Measurements(before), [])
        return "was forgotten" in report.per_ancestor["Luna-G000"].fallen

    assert forgets(lost) and not forgets(lost - 1)


def test_among_many_ancestors_more_must_be_lost() -> None:
    assert fewest_lost(Gates(), 40, 1).answers == 6
    assert fewest_lost(Gates(), 40, 10).answers == 9
    assert fewest_lost(Gates(), 5, 10) == Fewest(5, None)


@pytest.mark.parametrize("sizes", [[20], [50], [59], [60], [80], [30, 30], [40, 100], [12, 12, 12, 12]])
@pytest.mark.parametrize("evidence", ["point", "interval"])
def test_an_unchanged_child_passes_recall_or_does_not(evidence: str, sizes: list[int]) -> None:
    gates = gates_of(recall={"evidence": evidence})
    same = Measurements({str(number): scores(n, n) for number, n in enumerate(sizes)})
    assert passes_unchanged(gates, sizes) is passes("recall", gates, same, same)


def test_which_exams_rule_a_drop_out() -> None:
    gates = gates_of(recall={"evidence": "interval"})
    assert not passes_unchanged(gates, [59]) and passes_unchanged(gates, [60])
    assert passes_unchanged(Gates(), [1])


def test_an_exam_is_resolved_part_by_part() -> None:
    """An ancestor that left nothing is no try for chance."""
    empty = {f"Luna-G{number:03}": () for number in range(3, 20)}
    probes = {"Luna-G000": asked(40), "Luna-G002": asked(45, "choice"), **empty}
    found = detectable(Gates(), asked(12), probes)
    forgotten = {"Luna-G000": fewest_lost(Gates(), 40, 2), "Luna-G002": fewest_lost(Gates(), 45, 2)}
    assert found == Detectable(Fewest(12, 6), forgotten, unchanged_passes=True)
    assert detectable(Gates(), (), {"Luna-G001": ()}) == Detectable()


def test_likelihoods_are_not_counted() -> None:
    """They are no answers; an ancestor who left them is a try for chance all the same."""
    texts = [*asked(39), *asked(1, "nll")]
    found = detectable(Gates(), texts, {"Luna-G000": texts, "Luna-G001": asked(40)})
    assert found == Detectable(None, {"Luna-G001": fewest_lost(Gates(), 40, 2)}, True)
    alone = detectable(Gates(), asked(4, "nll"), {"Luna-G000": asked(4, "nll"), "Luna-G001": asked(40)})
    assert (alone.gained, alone.unchanged_passes) == (None, None)


@pytest.mark.parametrize("written", [3, 19, 58, 59, 80])
def test_an_exam_of_both_kinds_is_as_short_as_the_decision_finds_it(written: int) -> None:
    """One likelihood beside them makes the ancestors' probes no longer than they are."""
    gates = gates_of(recall={"evidence": "interval"})
    found = detectable(gates, asked(3) + asked(1, "nll"), {"Luna-G000": asked(written) + asked(1, "nll")})
    same = Measurements({"Luna-G000": (*scores(written, written), 0.3)})
    assert found.unchanged_passes is passes("recall", gates, same, same) is (written > 58)
    assert found.gained == Fewest(4, None)
    own = Measurements(generalize=(1.0, 1.0, 1.0, 0.97)), Measurements(generalize=(0.0, 0.0, 0.0, 0.1))
    assert not passes("generalize", gates_of(generalize={"ceiling": 0.999}), *own)


def test_exams_that_are_too_short_are_warned_of() -> None:
    gates = gates_of(recall={"evidence": "interval"})
    short = warnings_of(gates, detectable(gates, asked(4), {"Luna-G000": asked(40)}))
    assert [text.partition(":")[0] for text in short] == ["gates.generalize.evidence", "gates.recall.evidence"]
    assert "no gain on 4 own probes" in short[0] and "a drop of 0.05" in short[1]
    assert warnings_of(gates, detectable(gates, asked(6), {"Luna-G000": asked(60)})) == []
    assert warnings_of(gates, Detectable()) == []
