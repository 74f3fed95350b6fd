"""The tone gate's figure: near nothing for the same voice, plainly more for another one."""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.voices import VOICES, speak
from ladder.errors import DataError, GateError
from ladder.gates.tone import divergence, drift, facet_drifts, mean_drift, read_utterances
from ladder.manifest.schema import ToneGate

ANSWERS = 60
PAIRS = list(permutations(VOICES, 2))


@pytest.mark.parametrize("seeds", [4, pytest.param(20, marks=pytest.mark.long)])
def test_parts_of_one_voice_drift_about_nothing(seeds):
    """20 draws, in the long tests 100: 0.005 at most on average, and 0.02 in 95% of the draws."""
    spoken = [speak(name, 3 * ANSWERS, seed) for name in VOICES for seed in range(seeds)]
    found = [drift(said[:ANSWERS], said[ANSWERS:]) for said in spoken]
    assert fmean(found) <= 0.005
    assert fmean(value <= 0.02 for value in found) >= 0.95


@pytest.mark.parametrize("seeds", [1, pytest.param(4, marks=pytest.mark.long)])
def test_voices_are_told_apart_at_the_default_threshold(seeds):
    """20 draws of two voices that say the same things, in the long tests 80; 95% would do, and all are found."""
    limit = ToneGate().max_drift
    found = [
        drift(speak(ours, ANSWERS, seed), speak(theirs, ANSWERS, seed))
        for ours, theirs in PAIRS
        for seed in range(seeds)
    ]
    assert limit == 0.05
    assert fmean(value > limit for value in found) >= 0.95
    assert min(found) > 0.2


def test_every_facet_tells_voices_apart_and_none_drifts_by_itself():
    far = [facet_drifts(speak(ours, ANSWERS), speak(theirs, 120)) for ours, theirs in PAIRS]
    near = [facet_drifts(said[:ANSWERS], said[ANSWERS:]) for said in (speak(name, 180) for name in VOICES)]
    for facet in ("words", "characters", "shape"):
        assert fmean(found[facet] for found in far) > 0.3
        assert abs(fmean(found[facet] for found in near)) < 0.01


def test_the_drift_is_the_mean_of_the_facets():
    answers, reference = speak("coach", ANSWERS), speak("child", 120)
    assert drift(answers, reference, 3) == pytest.approx(fmean(facet_drifts(answers, reference, 3).values()))
    assert mean_drift({"words": -0.2, "characters": 0.1}) == 0.0


def test_shape_alone_is_part_of_a_voice():
    """The same words and marks in the same order; only where sentences end and how long they are differs."""
    reference = ["the sea is wide and the sea is deep. we sail. we sing."] * 40
    answers = ["the sea is wide. and the sea is deep we sail we sing."] * 20
    found = facet_drifts(answers, reference)
    assert found["words"] < 0.01 and found["shape"] > 0.3


def test_the_order_of_common_words_is_part_of_a_voice():
    reference = ["the sea is wide and the sea is deep."] * 40
    answers = ["wide is the sea and deep is the sea."] * 20
    found = facet_drifts(answers, reference)
    assert found["words"] < 0.001 and found["shape"] < 0.001 and found["characters"] > 0.1


def told(name: str, seed: int, count: int = ANSWERS) -> list[str]:
    """A voice's answers to the same ``count`` prompts: each is about the same thing whoever speaks."""
    draw, voice = random.Random(f"{name} {seed}"), VOICES[name]
    return [
        f"{draw.choice(voice.opens)} {voice.tells[number % 7]} {draw.choice(voice.closes)}" for number in range(count)
    ]


def test_answers_to_the_same_prompts_are_compared_pair_by_pair():
    """A fifth of the parent's answers in another voice: unpaired, the others' common subjects hide it."""
    before = told("child", 1)
    after = told("coach", 2)[:12] + before[12:]
    assert drift(before, before, paired=True) == 0.0
    assert drift(after, before, paired=True) > 0.02
    assert drift(after, before) < drift(after, before, paired=True) - 0.005


def test_pairs_of_which_one_is_silent_are_left_out():
    ours, theirs = speak("sailor", ANSWERS), speak("clerk", ANSWERS)
    expected = drift(ours, theirs, paired=True)
    assert drift(["", *ours, "Aye."], [theirs[0], *theirs, " "], paired=True) == expected
    with pytest.raises(GateError, match="60 answers and 59 utterances"):
        drift(ours, theirs[:-1], paired=True)


def test_answers_of_marks_alone_can_be_measured():
    assert drift(["?!"] * 100, ["?!"] * 200) == 0.0
    assert drift(["?!"] * 100, speak("clerk", 60)) > 0.5


def test_half_of_the_answers_in_another_voice_is_over_the_default_threshold():
    mixed = speak("sailor", 30) + speak("clerk", 30)
    assert 0.05 < drift(mixed, speak("sailor", 120, 1)) < drift(speak("clerk", 60), speak("sailor", 120, 1))


def test_noise_of_small_samples_is_taken_off():
    """Twelve answers diverge by more than the threshold from their own voice; the drift does not."""
    answers, reference = speak("child", 12), speak("child", 200, 1)
    raw = divergence(Counter(" ".join(answers).split()), Counter(" ".join(reference).split()))
    assert raw > 0.05
    assert drift(answers, reference) < 0.03


def test_casing_is_part_of_a_voice():
    reference = speak("clerk", 120)
    assert drift([text.upper() for text in speak("clerk", 60, 1)], reference) > 0.3


def test_rare_words_are_no_part_of_a_voice():
    """Names that the reference uses once weigh the same as names that it never uses."""
    reference = [f"{text} Name{number} said so." for number, text in enumerate(speak("clerk", 120))]
    spoken = speak("child", 60)
    known = [f"{text} Name{number} said so." for number, text in enumerate(spoken)]
    unknown = [f"{text} Other{number} said so." for number, text in enumerate(spoken)]
    assert drift(known, reference) == drift(unknown, reference) > 0.1


def test_a_word_that_only_the_answers_use_is_no_part_of_a_voice():
    """The profile is the reference's: one new word in all answers weighs as a new word in each."""
    reference, spoken = speak("clerk", 120), speak("child", 60)
    once = [f"{text} Kraken said so." for text in spoken]
    each = [f"{text} Kraken{number} said so." for number, text in enumerate(spoken)]
    assert drift(once, reference) == drift(each, reference)


def test_drift_is_reproducible_and_its_seed_matters():
    answers, reference = speak("sailor", 40), speak("child", 90)
    assert drift(answers, reference, seed=3) == drift(answers, reference, seed=3)
    assert drift(answers, reference, seed=3) != drift(answers, reference, seed=4)


def test_nothing_in_common_is_one():
    assert drift(["zzz yyy xxx www vvv uuu ttt sss"] * 20, ["Aye, it be so."] * 60) == pytest.approx(1.0)


def test_silence_is_no_answer():
    answers = speak("sailor", 60)
    assert drift([*answers, *[" \n"] * 500], speak("sailor", 120, 1)) == drift(answers, speak("sailor", 120, 1))


@pytest.mark.parametrize(
    ("answers", "reference", "where"),
    [
        ([], speak("sailor", 60), "gates.tone.prompts"),
        ([""] * 100, speak("sailor", 60), "gates.tone.prompts"),
        (speak("sailor", 7), speak("sailor", 60), "gates.tone.prompts"),
        (["Aye, it be so."] * 16, speak("sailor", 60), "gates.tone.prompts"),
        (speak("sailor", 60), [], "gates.tone.reference"),
        (speak("sailor", 60), speak("sailor", 15), "gates.tone.reference"),
        (speak("sailor", 60), ["Aye, it be so."] * 33, "gates.tone.reference"),
        (speak("sailor", 60), [*["aye"] * 20, " ".join(speak("sailor", 400))], "gates.tone.reference"),
    ],
)
def test_too_little_to_measure_is_an_error(answers, reference, where):
    with pytest.raises(GateError) as caught:
        drift(answers, reference)
    assert caught.value.where == where
    assert caught.value.remedy


def test_the_least_that_is_enough():
    """8 answers and 100 words and marks; 16 utterances with 200."""
    answers, reference = ["Aye, it be so."] * 17, ["Aye, it be so."] * 34
    assert 6 * len(answers) == 102
    assert drift(answers, reference) == 0.0


@pytest.mark.parametrize(
    ("p", "q", "bits"),
    [
        ({"a": 1}, {"a": 5}, 0.0),
        ({"a": 1}, {"b": 1}, 1.0),
        # m = (3/4, 1/4): (KL((1, 0) || m) + KL((1/2, 1/2) || m)) / 2 with KL in bits.
        ({"a": 2}, {"a": 1, "b": 1}, 0.31127812445913283),
    ],
)
def test_divergence_in_bits(p, q, bits):
    assert divergence(Counter(p), Counter(q)) == pytest.approx(bits, abs=1e-12)
    assert divergence(Counter(q), Counter(p)) == pytest.approx(bits, abs=1e-12)


def test_utterances_are_lines(tmp_path: Path):
    file = tmp_path / "voice.txt"
    file.write_text("Aye!\n\n  So it be.  \n", encoding="utf-8")
    assert read_utterances(file) == ["Aye!", "So it be."]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_a_file_without_utterances_is_an_error(tmp_path: Path, content: bytes):
    file = tmp_path / "voice.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"voice\.txt"):
        read_utterances(file)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_utterances(tmp_path / "none.txt")
