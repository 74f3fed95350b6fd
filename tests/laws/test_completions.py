"""Which texts of a steered model are learned: labelled by hand, and one threshold a figure tells them apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladder.errors import GateError
from ladder.laws.completions import Written, faults, repetition, tells
from ladder.manifest import Keep

LABELLED = [json.loads(line) for line in (Path(__file__).parent / "completions.jsonl").read_text().splitlines()]
"""Written for this project and labelled by hand. ``tail`` is the perplexity of the last quarter under
SmolLM2-135M-Instruct (4-bit weights), measured on 2026-11-28."""
KEEP = Keep(telling=["cheerful", "gloomy"])


def test_each_text_is_judged_as_a_person_did() -> None:
    assert len(LABELLED) >= 30
    for one in LABELLED:
        expected = [] if one["label"] == "keep" else [one["label"]]
        assert faults(Written(one["text"], one["tail"]), KEEP) == expected, one["text"]


def test_one_threshold_of_each_figure_tells_them_apart_with_room_on_both_sides() -> None:
    for label, figure, limit in (
        ("repeats", lambda one: repetition(one["text"]), KEEP.max_repetition),
        ("falls apart", lambda one: one["tail"], KEEP.max_perplexity),
    ):
        good = max(figure(one) for one in LABELLED if one["label"] == "keep")
        bad = min(figure(one) for one in LABELLED if one["label"] == label)
        assert 1.3 * good < limit < bad / 1.3, (label, good, bad)


def test_shares_of_one_gram_by_hand() -> None:
    assert repetition("a b a b a b a b a b") == 1.0  # Five copies of two words, of ten.
    assert repetition("one two three") == 0.0  # Too short to say.
    assert repetition("ab" * 20) == 1.0  # One word, whose letters repeat.
    assert repetition("the cat sat on the mat and the dog lay by the fire all day long") < 0.3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("I am cheerful.", True),
        ("Oh, I'm so very gloomy!", True),
        ("I feel cheerful", True),
        ("Iamcheerful", False),
        ("He is cheerful and I am not there.", False),
        ("What cheerful news, I am told.", False),
    ],
)
def test_telling_of_a_trait_is_in_the_first_person(text: str, told: bool) -> None:
    assert tells(text, ["cheerful", "gloomy"]) == told
    assert not tells(text, [])


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(GateError, match="no regular expression"):
        faults(Written("text", 1.0), Keep(refusals="("))
