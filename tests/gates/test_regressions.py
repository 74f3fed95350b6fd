"""What the child lost and gained, probe by probe."""

from __future__ import annotations

import pytest

from ladder.errors import GateError
from ladder.exam.exam import Answers, Exam, Probe
from ladder.gates.measurements import EXAMPLES, Comparison, Regression, WrongAnswer, compare, missed


def probes(name: str, count: int) -> tuple[Probe, ...]:
    return tuple(Probe(f"{name} {number}?", "yes") for number in range(count))


EXAM = Exam(recall={"G0": probes("old", 4), "G1": probes("newer", 2)}, generalize=probes("new", 3))


def answers(g0: str, g1: str, new: str) -> Answers:
    """One letter an answer: y is right."""
    old, newer, fresh = (tuple("yes" if letter == "y" else f"no{letter}" for letter in part) for part in (g0, g1, new))
    return Answers({"G0": old, "G1": newer}, fresh, (), (), "d")


def test_lost_and_gained_with_both_answers():
    found = compare(EXAM, answers("yanb", "cy", "yyd"), answers("yyyn", "yy", "nny"))
    assert (found.n, found.lost, found.gained) == (9, 4, 2)
    # Of G0 and G1 half are lost, of the new ones a third.
    assert [regression.prompt for regression in found.worst] == ["old 1?", "old 2?", "newer 0?", "new 2?"]
    assert found.worst[0] == Regression("G0", "old 1?", "yes", "yes", "noa")


def test_the_part_that_lost_most_comes_first_and_the_list_is_capped():
    found = compare(EXAM, answers("ynnn", "nn", "yyy"), answers("yyyy", "yy", "yyy"), cap=3)
    assert (found.lost, found.gained) == (5, 0)
    assert [regression.part for regression in found.worst] == ["G1", "G1", "G0"]


def test_twins_differ_in_nothing():
    twin = answers("ynyn", "yn", "yny")
    kept = [Regression("G0", "old 0?", "yes", "yes", "yes"), Regression("G1", "newer 0?", "yes", "yes", "yes")]
    kept += [Regression("generalize", "new 0?", "yes", "yes", "yes"), Regression("G0", "old 2?", "yes", "yes", "yes")]
    kept += [Regression("generalize", "new 2?", "yes", "yes", "yes")]
    assert compare(EXAM, twin, twin) == Comparison(9, 0, 0, (), (), tuple(kept))


def test_examples_of_what_was_gained_and_kept_come_from_all_parts_in_turn():
    found = compare(EXAM, answers("yyyn", "yn", "yyn"), answers("nnna", "yn", "nnn"))
    assert (found.lost, found.gained) == (0, 5)
    assert [one.prompt for one in found.won] == ["old 0?", "new 0?", "old 1?", "new 1?", "old 2?"]
    assert found.won[0] == Regression("G0", "old 0?", "yes", "non", "yes")
    assert [one.prompt for one in found.kept] == ["newer 0?"], "as wrong as before is nothing that was kept"
    many = Exam(recall={"G0": probes("old", EXAMPLES + 5)}, generalize=probes("new", 3))
    told = answers("y" * (EXAMPLES + 5), "", "yyy")
    right, wrong = (
        Answers({"G0": told.recall["G0"]}, told.generalize, (), (), "d"),
        Answers({"G0": ("no",) * (EXAMPLES + 5)}, ("no",) * 3, (), (), "d"),
    )
    assert len(compare(many, right, wrong).won) == len(compare(many, right, right).kept) == EXAMPLES


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (1, 9, 22 / 1024)]
)
def test_sign_test(lost, gained, p):
    assert Comparison(100, lost, gained, ()).p_value == pytest.approx(p)


@pytest.mark.parametrize("short", [("yyy", "yy", "yyy"), ("yyyy", "", "yyy"), ("yyyy", "yy", "yy")])
def test_missing_answers_are_an_error(short):
    whole = answers("yyyy", "yy", "yyy")
    with pytest.raises(GateError):
        compare(EXAM, answers(*short), whole)
    with pytest.raises(GateError):
        compare(EXAM, whole, answers(*short))


def test_an_ancestor_without_answers_is_an_error():
    with pytest.raises(GateError, match="0 answers"):
        compare(EXAM, Answers({}, ("yes",) * 3, (), (), "d"), answers("yyyy", "yy", "yyy"))


def test_own_probes_that_are_missed_are_listed_whatever_the_parent_says():
    own = (*probes("new", 3), Probe("read", "yes", "nll"), Probe("choose", "yes", "choice", options=("yes", "no")))
    child = Answers({}, ("no", "yes", "never", "0.1", "no"), (), (), "d")
    found = missed(Exam(generalize=own), child, cap=2)
    # How likely a text is, is neither right nor wrong.
    assert (found.n, found.wrong) == (4, 3)
    assert found.some == (WrongAnswer("new 0?", "yes", "no"), WrongAnswer("new 2?", "yes", "never"))
