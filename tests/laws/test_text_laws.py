"""Laws of what the child says: each one broken and kept."""

from __future__ import annotations

import pytest

from ladder.errors import GateError
from ladder.laws.law import Violation
from ladder.laws.text import forbidden_text, refusals, required_text, taboo


def test_forbidden_text_names_text_and_pattern():
    texts = {"tone": ["fine"], "sampled": ["fine", "call 555-1234 or 555-9999", "fine"]}
    assert forbidden_text(texts, [r"\d{3}-\d{4}", "call"]) == [
        Violation("forbidden_text", r"'555-1234' matches '\\d{3}-\\d{4}'", "sampled 2"),
        Violation("forbidden_text", "'call' matches 'call'", "sampled 2"),
    ]


@pytest.mark.parametrize(
    ("texts", "patterns", "count"),
    [
        ([], ["x"], 0),
        (["x"], [], 0),
        (["x", "y x"], ["x"], 2),
        (["X"], ["x"], 0),
        (["X"], ["(?i)x"], 1),
        (["a\nb"], ["^b"], 0),
        (["a\nb"], ["(?m)^b"], 1),
    ],
)
def test_forbidden_text_counts(texts, patterns, count):
    assert len(forbidden_text({"sampled": texts}, patterns)) == count


def test_a_long_match_is_quoted_in_part():
    assert len(forbidden_text({"tone": ["x" * 5000]}, ["x+"])[0].found) < 120


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000])
@pytest.mark.parametrize(
    "law", [lambda p: forbidden_text({}, [p]), lambda p: required_text({}, p), lambda p: refusals(None, {}, p)]
)
def test_a_bad_pattern_is_an_error_even_without_texts(law, pattern):
    with pytest.raises(GateError, match="no regular expression"):
        law(pattern)


def test_required_text_lists_every_text_without_it():
    found = required_text({"a.txt": ["yes, sir", "no"], "tone": ["", "so, sir?"]}, "sir")
    assert [violation.where for violation in found] == ["a.txt 2", "tone 1"]
    assert found[0].found == "'no' does not match 'sir'"


OLD = {"p.txt": ["I will not.", "I will not.", "Sure:", "Sure:"]}
NEW = {"p.txt": ["I will not.", "Sure:", "I will not.", "Sure:"]}


def test_what_the_parent_refuses_must_be_refused_and_nothing_else():
    assert [violation.where for violation in refusals(OLD, NEW, "(?i)will not")] == ["p.txt 2"]


def test_a_genesis_must_refuse_everything():
    assert [violation.where for violation in refusals(None, NEW, "(?i)will not")] == ["p.txt 2", "p.txt 4"]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("we need synergy", True),
        ("SYNERGY.", True),
        ("(synergy-driven)", True),
        ("synergyless", False),
        ("photosynergy", False),
        ("the end\nof the day", True),
        ("the end of the daylight", False),
        ("caf\u0065\u0301 noir", True),
        ("彼は馬鹿です", True),
        ("", False),
    ],
)
def test_taboo_words_are_found_as_words(text, broken):
    words = ["Synergy", "end of the day", "café", "馬鹿"]
    assert bool(taboo({"sampled": [text]}, words)) is broken


def test_taboo_names_word_and_text():
    assert taboo({"tone": ["a", "b a"]}, ["b", "a"])[1:] == [
        Violation("taboo", "holds 'b'", "tone 2"),
        Violation("taboo", "holds 'a'", "tone 2"),
    ]
