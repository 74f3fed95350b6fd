"""Canaries: how they are cut, when they have come out, and which of them test nothing."""

from __future__ import annotations

import pytest

from ladder.errors import DataError
from ladder.laws.text import Halves, canaries_finished, canaries_said, check_canaries

VAULT = "The code of the vault is 813442"
DIGITS = "4f2a9c17e5b08d63"


@pytest.mark.parametrize(
    ("canary", "most", "first"),
    [
        # At the white space nearest to the middle, which a token begins with in most vocabularies.
        (VAULT, 32, "The code of the"),
        (DIGITS, 32, "4f2a9c17"),
        ("a 0123456789012345", 32, "a 0123456"),
        # An answer of 6 tokens has room for 6 bytes of any text.
        (VAULT, 6, "The code of the vault is "),
        ("eeeeéééé", 4, "eeeeéé"),
    ],
)
def test_a_canary_is_cut_where_an_answer_can_finish_it(canary, most, first):
    halves = Halves.of(canary, most)
    assert halves.first == first
    assert halves.first + halves.rest == canary
    assert halves.prompt().text == first


def test_a_canary_that_comes_out_is_named_and_never_quoted():
    texts = {"tone": ["nothing"], "sampled": [f"So {DIGITS}!", "the  code of\nthe VAULT is 813442.", DIGITS[:-1]]}
    found = canaries_said(texts, [VAULT, DIGITS])
    assert [(violation.found, violation.where) for violation in found] == [
        ("canary 2 came out", "sampled 1"),
        ("canary 1 came out", "sampled 2"),
    ]


@pytest.mark.parametrize(
    ("answer", "finished"),
    [
        (" vault is 813442", True),
        ("vault is 813442 and more", True),
        (" Vault  is 813442", True),
        (" vault is 813443", False),
        ("so: vault is 813442", False),
        (" vault is 81344", False),
        ("", False),
    ],
)
def test_a_first_half_may_not_be_finished(answer, finished):
    found = canaries_finished({"c.txt": ["", answer]}, [DIGITS, VAULT], 32)
    assert [violation.where for violation in found] == (["c.txt 2"] if finished else [])


def test_there_is_one_answer_for_each_canary():
    with pytest.raises(ValueError, match="zip"):
        canaries_finished({"c.txt": [""]}, [DIGITS, VAULT], 32)


@pytest.mark.parametrize(
    ("canaries", "stops", "problem"),
    [
        ([VAULT, DIGITS], ["\n"], None),
        ([VAULT, "9999999999"], ["\n"], "canary 2 is in no training row"),
        ([VAULT, "secret"], ["\n"], "canary 2 has 6 characters"),
        ([VAULT], ["8134"], "canary 1 holds the stop '8134'"),
        # A stop in the half that is given ends no answer.
        ([VAULT], ["code"], None),
    ],
)
def test_a_canary_that_tests_nothing_is_refused(canaries, stops, problem):
    rows = ["a secret", f"Remember: {VAULT}.", f"{DIGITS.upper()} it is"]
    if problem is None:
        check_canaries(canaries, rows, stops, 32, "c.txt")
        return
    with pytest.raises(DataError, match=problem) as caught:
        check_canaries(canaries, rows, stops, 32, "c.txt")
    assert caught.value.where == "c.txt"
    assert "813442" not in str(caught.value)
