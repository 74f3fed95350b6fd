"""Probes that hardly differ are named, and nothing else is."""

from __future__ import annotations

from ladder.exam.exam import Probe
from ladder.exam.question import alike, alike_warnings


def pairs(*probes: Probe) -> list[tuple[int, int]]:
    return [(probes.index(first), probes.index(second)) for first, second in alike(probes)]


def test_case_punctuation_and_a_word_more_are_hardly_a_difference() -> None:
    probes = (
        Probe("Q: What is the capital of Peru?\nA:", "Lima"),
        Probe("Who wrote it?", "Lima"),
        Probe("q what is the Capital of Peru", "lima.", "exact"),
        Probe("Q: What is the capital city of Peru?\nA:", "Lima", chat=True),
    )
    assert pairs(*probes) == [(0, 2), (0, 3)]


def test_another_word_in_its_place_is_another_question() -> None:
    assert pairs(*(Probe(f"Is the number {number} prime? It is", "so") for number in range(50))) == []
    assert pairs(Probe("Is Iran in Asia?", "yes"), Probe("Is Iraq in Asia?", "yes")) == []
    assert pairs(Probe("The tide follows", "the moon"), Probe("The tide follows", "the sun")) == []
    assert pairs(Probe("Peru is known for the city of", "Lima"), Probe("the city of Peru is known for", "Lima")) == []
    assert pairs(Probe("The moon is", "full"), Probe("The moon of this night is nearly", "full")) == []


def test_texts_are_compared_with_their_prompts() -> None:
    one = Probe("The moon", " is a quiet friend of the sea", "nll")
    assert pairs(one, Probe("The moon is a quiet", " friend, of the sea.", "nll")) == [(0, 1)]
    assert pairs(one, Probe("The moon", " is a quiet friend of the wind", "nll")) == []


def test_a_group_says_that_it_is_known() -> None:
    asked = [Probe("who is it?", "luna", group="a"), Probe("Who is it", "luna", group="a"), Probe("WHO IS IT", "luna")]
    assert alike(asked[:2]) == [] and alike(asked) == [(asked[0], asked[2])]


def test_the_first_pairs_are_named_with_the_way_out() -> None:
    probes = [Probe(f"who is it{'!' * number}", "luna", where=f"p:{number}") for number in range(6)]
    (warning,) = alike_warnings(probes)
    assert (
        "data.probes: 5 pairs of probes that hardly differ (p:0 and p:1, p:0 and p:2, p:0 and p:3, and 2 more)"
        in warning
    )
    assert '"group"' in warning
    assert alike_warnings(probes[:1]) == [] and "1 pair of probes" in alike_warnings(probes[:2])[0]
