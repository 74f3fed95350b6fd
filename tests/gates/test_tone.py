"""The tone gate's figure: near nothing for the same voice, plainly more for another one."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from ladder.errors import DataError, GateError
from ladder.gates.tone import divergence, drift, read_utterances

# Each voice: how it opens, what it tells, how it closes. The subjects are the same, so only the voice differs.
SAILOR = (
    [
        "Aye,",
        "Well now, lad,",
        "By my beard,",
        "Hark ye,",
        "Ah, me old friend,",
        "So ye ask me,",
        "Listen close, mate,",
    ],
    [
        "the bread be hard and the water be foul",
        "there be no finer harbour than the one ye come home to",
        "a storm be but the sea a-talking to them as listen",
        "me old ship never let in a drop till the night she went down",
        "ye can trust a cat aboard, for she knows afore ye do",
        "the stars be all the map a sailor needs, and the wind be his clock",
        "I've seen the ice come down on us like a white wall",
    ],
    [
        "and that be the truth of it!",
        "so it be.",
        "or drown me!",
        "and ye may lay to that.",
        "as me captain used to say.",
    ],
)
CLERK = (
    ["With regard to your enquiry,", "It is noted that", "Please be advised that", "In accordance with the records,"],
    [
        "the supply of bread has been found to be of insufficient quality",
        "the harbour in question is considered to be suitable for the purpose",
        "the storm was reported to the office by telegraph on the following day",
        "the vessel was inspected in the presence of the officer of the port",
        "the animal is to be entered in the register of the crew without delay",
        "the position of the vessel is to be determined by means of the instruments",
        "the formation of ice has been observed in the northern part of the district",
    ],
    ["; no further action is required.", "; a copy has been filed.", ", subject to the approval of the board.", "."],
)
CHILD = (
    ["Guess what?", "I know!", "Mum says", "You know what?", "My favourite!", "Look, look!"],
    [
        "we had bread and it was so, so yummy",
        "there's a harbour and it's got like a hundred boats",
        "it was raining really really loud and I wasn't even scared",
        "the ship had a hole in it and then it sank, splash",
        "there's a cat on the boat and her name is Biscuit",
        "you can see the stars and they're all twinkly",
        "I saw ice and it was bigger than our house",
    ],
    ["and it was so cool!", "and then I laughed.", "can we go again?", "I'm not making it up!", "isn't that funny?"],
)
VOICES = {"sailor": SAILOR, "clerk": CLERK, "child": CHILD}


def speak(name: str, count: int, seed: int = 0) -> list[str]:
    draw = random.Random(f"{name} {seed}")
    return [" ".join(draw.choice(part) for part in VOICES[name]) for _ in range(count)]


@pytest.mark.parametrize("name", VOICES)
def test_halves_of_one_voice_barely_differ(name):
    halves = [(spoken[:80], spoken[80:]) for spoken in (speak(name, 160, seed) for seed in range(6))]
    drifts = [drift(answers, reference) for answers, reference in halves]
    assert 0.0 <= min(drifts) <= max(drifts) <= 0.03
    assert sum(drifts) / len(drifts) <= 0.01


@pytest.mark.parametrize(("name", "other"), [(a, b) for a in VOICES for b in VOICES if a != b])
def test_another_voice_is_far(name, other):
    assert drift(speak(name, 60), speak(other, 120)) > 0.1


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
