"""What is counted in a text: words, trigrams of masked text, and the shape of its sentences."""

from __future__ import annotations

import pytest

from ladder.gates.tone import Profile, characters, shape, words


def test_words_are_written_words_and_marks():
    assert words("Don't a-talk, Mum!") == ["Don't", "a-talk", ",", "Mum", "!"]


def test_characters_hide_words_that_are_not_known():
    assert characters("the  Kraken,\tthe", {"the", ","}) == [" th", "the", "he ", "e *", " *,", "*, ", ", t", *[
        " th", "the", "he "
    ]]  # fmt: skip
    assert characters("the Kraken", {"the"}) == characters("the Leviathan", {"the"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Aye, so be it.", ["1,", "2.", "sentence 3"]),
        ("Why? Well then... go on", ["1?", "2...", "2", "sentence 1", "sentence 2", "sentence 2"]),
        ("one two three four five six seven; eight", ["3;", "1", "sentence 4"]),
        (" ?! ", ["0?!", "sentence 0"]),
        ("", []),
    ],
)
def test_shape(text, found):
    assert shape(text) == found


def test_a_profile_counts_what_is_frequent_in_its_reference_and_the_rest_together():
    profile = Profile(["so it be"] * 3 + ["so Anna"] * 2)
    counts = profile.count(["so it be Ben", "so Anna"])
    assert counts["words"] == {"so": 2, "it": 1, "be": 1, "": 2}
    assert counts["shape"] == {"2": 1, "sentence 2": 1, "": 2}
    # " so", "so " and "o *" of "so *" are known too; the latter occurs twice only.
    assert counts["characters"][" so"] == 2 and "o *" not in counts["characters"]
