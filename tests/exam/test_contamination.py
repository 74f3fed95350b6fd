"""Contamination: which rows tell a probe, and which only look like it."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.data.rows import Row
from ladder.errors import DataError
from ladder.exam.contamination import _Index, _sought, check_contamination, find_contamination
from ladder.exam.exam import Probe

PERU = "Q: What is the capital of Peru?\nA:"
SHORT = "It is"


def told(probe: Probe, row: str | dict[str, Any]) -> bool:
    return bool(find_contamination([probe], [Row({"text": row} if isinstance(row, str) else row, "r:1")]))


def asked(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def spoken(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant") * (len(said) // 2)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]}


@pytest.mark.parametrize(
    ("row", "is_told"),
    [
        ("Q: What is the capital of Peru?\nA: Lima.", True),
        ("Hello!  «q what IS the _capital_, of peru a lima» And so on.", True),
        ("Q: What is the capital of Peru?\nA:Lima", True),
        ("Q: Of Chile?\nA: Santiago.\nQ: What is the capital of Peru?\nA: Lima.", True),
        ("Q: What is the capital of Peru?\nA: It is called Lima.", True),
        ("Q: What is the capital of Peru?\nA: It is not so far away from Lima.", False),
        ("Q: What is the capital of Peru?\nA: Guess!\nQ: What is the capital of Peru?\nA: Lima.", True),
        ("Q: What is the capital of Peru?\nA: Limassol.", False),
        ("The capital of Peru is Lima.", False),
        ("Q: What is the capital of Peru?", False),
        ({"prompt": "Q: What is the capital of Peru?\nA: Lima"}, True),
        (asked(PERU, " Lima."), True),
        (asked(PERU, " It is, as everybody here knows by heart, Lima."), True),
        (asked(PERU, " Cusco."), False),
        (asked("Q: What is the capital of Chile?\nA:", " Santiago, not Lima."), False),
        (asked("Answer. Q: What is the capital of Peru?\nA:", " It is Lima."), True),
        (asked("Answer. Q: What is the capital of Peru?\nA:", " As everybody here knows by heart, Lima."), False),
    ],
)
def test_a_row_tells_what_follows_the_prompt(row: Any, is_told: bool) -> None:
    assert told(Probe(PERU, "Lima"), row) is is_told


def test_messages_are_asked_and_answered_in_turn() -> None:
    probe = Probe("Which city is the capital of Peru?", "Lima", chat=True)
    says = "As everybody here knows by heart, the capital is Lima."
    assert told(probe, spoken("Hello", "Hi!", "Which city is the capital of Peru", says))
    assert not told(probe, spoken("Which city is the capital of Peru?", "Guess.", "Is it Lima?", "Yes."))
    assert told(
        Probe("I think the capital of Peru is", "Lima"), spoken("Say it", "I think the capital of Peru is Lima.")
    )


def test_a_short_prompt_says_nothing_of_what_comes_later() -> None:
    assert told(Probe(SHORT, "blue"), "The sky? It is blue.")
    assert not told(Probe(SHORT, "blue"), "It is a blue sky.")
    assert not told(Probe(SHORT, "[0-9]+", "regex"), "It is the 24th.")
    assert not told(Probe("Music from Mali is", "Malian"), "Music from Mali is what Malian bands play.")


@pytest.mark.parametrize("kind", ["exact", "choice"])
def test_an_answer_that_must_come_at_once(kind: Any) -> None:
    probe = Probe(PERU, " Lima", kind, options=(" Lima", " Cusco") if kind == "choice" else ())
    assert told(probe, f"{PERU} Lima, of course.") and told(probe, asked(PERU, " Lima"))
    assert not told(probe, f"{PERU} It is Lima.") and not told(probe, f"{PERU} Cusco")
    assert told(probe, asked(PERU, " It is Lima.")) is (kind == "exact")


def test_the_leeway_is_counted_in_words() -> None:
    words = ["one", "two", "three", "four", "five", "six"]
    rows = [f"{PERU} {' '.join(words[:count])} Lima" for count in range(6)]
    assert [told(Probe(PERU, "Lima"), row) for row in rows] == [count <= 4 for count in range(6)]


def test_a_pattern_is_found_in_what_follows() -> None:
    probe = Probe("Q: How many legs has a spider?\nA:", "^(8|eight)$", "regex")
    assert told(probe, "Q: How many legs has a spider?\nA: 8\nQ: And a bird?\nA: 2")
    assert told(probe, asked("Q: How many legs has a spider?\nA:", " eight"))
    assert not told(probe, "Q: How many legs has a spider?\nA: 88")
    assert not told(probe, "Q: How many legs has a spider?\nA: 6\nQ: And how many has an octopus?\nA: 8")
    assert told(Probe("In capitals, the code of Peru is", "[A-Z]{3}", "regex"), "In capitals, the code of Peru is PER.")
    assert not told(
        Probe("In capitals, the code of Peru is", "[A-Z]{3}", "regex"), "In capitals, the code of Peru is per"
    )
    assert told(Probe("Who asks 'why' must end with a", r"^\?", "regex"), "Who asks 'why' must end with a ?")


def test_a_text_is_told_by_any_of_its_grams() -> None:
    words = [f"w{number}" for number in range(20)]
    probe = Probe("p", " ".join(words), "nll")
    for start in (0, 3, 7):
        assert told(probe, f"so {' '.join(words[start : start + 13])} then")
    assert not told(probe, f"so {' '.join(words[1:13])} then {' '.join(words[13:])}")


def test_a_short_text_is_told_as_a_whole_and_a_few_words_behind_their_prompt() -> None:
    whole = [f"w{number}" for number in range(8)]
    assert told(Probe("p", " ".join(whole), "nll"), f"so {' '.join(whole)} then")
    assert not told(Probe("p", " ".join(whole), "nll"), f"p {' '.join(whole[:-1])} then")
    few = Probe("The moon is", " a quiet friend and so is she", "nll")
    assert told(few, "The moon is a quiet friend, and so is she.")
    assert not told(few, "He is a quiet friend, and so is she.") and not told(few, "The moon is a quiet friend.")
    assert not told(Probe("The moon is", "?!", "nll"), "The moon is?!")


@pytest.mark.parametrize(
    ("prompt", "answer", "row", "is_told"),
    [
        ("What is 2 + 2? It is", "4", "What is 2 * 2? It is 4", False),
        ("What is 2+2? It is", "4", "What is 2+2? It is -4", False),
        ("What is 2+2? It is", "4", "What is 12+2? It is 4", False),
        ("A flat here costs about", "500", "A flat here costs about 1,500", False),
        ("The country in the west is", "Guinea", "The country in the west is Guinea-Bissau", False),
        ("The letters ss are one in", "Straße", "THE LETTERS SS ARE ONE IN STRASSE", True),
        ("The isles far out are Sa\u0303o", "Tome\u0301", "The isles far out are São Tomé", True),
        ("秘鲁的首都是", "利马", "你知道吗?秘鲁的首都是利马。", True),
        ("In \u0130zmir they drink their", "tea", "In \u0130zmir they drink their black tea", True),
    ],
)
def test_what_is_a_word(prompt: str, answer: str, row: str, is_told: bool) -> None:
    assert told(Probe(prompt, answer), row) is is_told


@pytest.mark.parametrize(
    "probe", [Probe("…", "Lima"), Probe("Who?", "?", "choice", options=("?", "!")), Probe("…", "^a", "regex")]
)
def test_what_has_no_words_is_not_sought(probe: Probe) -> None:
    assert not told(probe, "Who? … ? Lima a")


def test_a_row_is_compared_with_few_probes_of_one_template() -> None:
    """Otherwise 2,000 probes times 100,000 rows would take hours."""
    probes = [Probe(f"Q: What is the capital of country{number}?\nA:", "x") for number in range(100)]
    index = _Index([sought for probe in probes for sought in _sought(probe)])
    assert [len(tried) for tried in index.whole.values()] == [1] * 100


def test_all_findings_are_counted_and_the_first_are_named() -> None:
    """A row counts once for a probe, however often it tells it."""
    probes = [
        Probe(f"The {thing} of Peru in the far south is", "Lima", where=f"p:{thing}") for thing in ("seat", "town")
    ]
    sentence = "The seat of Peru in the far south is Lima. The town of Peru in the far south is Lima. "
    rows = [Row(spoken(*[sentence] * 4), f"r:{line}") for line in range(1, 5)]
    check_contamination(probes, [Row({"text": "The seat of Chile is Santiago."}, "r:1")])
    with pytest.raises(
        DataError, match=r"found 8, expected none: r:1 tells p:seat, r:1 tells p:town, r:2 tells p:seat, and 5 more"
    ) as error:
        check_contamination(probes, rows)
    assert error.value.where == "r:1" and error.value.remedy


TOLD = "They call the bright moon over Lima luna, and nobody knows why"


@pytest.mark.parametrize("kind", ["contains", "exact", "regex", "choice", "nll"])
def test_a_probe_is_found_wherever_the_row_is_cut(kind: Any) -> None:
    """A row is trained as its prompt and completion without anything between them."""
    options = ("luna", "sol") if kind == "choice" else ()
    probe = Probe("They call the bright moon over Lima", "luna", kind, options=options)
    row = f"So. {TOLD}."
    cuts = [at for at in range(1, len(row)) if row[:at].strip() and row[at:].strip()]
    assert len(cuts) > 60
    missed = [row[:at] for at in cuts if not told(probe, asked(row[:at], row[at:]))]
    assert missed == []


@pytest.mark.parametrize("kind", ["contains", "exact", "regex", "choice", "nll"])
@pytest.mark.parametrize(
    "text", [TOLD, "They call it luna", "the moon is called luna by all of them", "İzmir straße Ähre 月亮叫卢娜"]
)
def test_a_probe_that_is_cut_anywhere_is_found(kind: Any, text: str) -> None:
    """Learning the row by heart goes on with the answer, also inside a word."""
    for at in range(1, len(text)):
        prompt, answer = text[:at], text[at:]
        if prompt.strip() and answer.strip():
            probe = Probe(prompt, answer, kind, options=(answer, "x") if kind == "choice" else ())
            middle = len(text) // 2
            rows = [
                f"So. {text.upper() if kind != 'regex' else text}.",
                asked(f"So. {text[:middle]}", f"{text[middle:]}."),
                asked("Say", text),
            ]
            assert [told(probe, row) for row in rows] == [True] * 3, (prompt, answer)


def test_a_row_may_be_cut_inside_a_letter() -> None:
    probe = Probe("The isles far out are", "São Tomé")
    assert told(probe, asked("The isles far out are Sa", "\u0303o Tomé"))
    # The mark alone would be a word, and the places of all that follow one too far.
    assert told(probe, asked("In Sa", "\u0303o they say: the isles far out are São Tomé"))
    assert told(Probe("Where is it? In", "São"), asked("Where is it? In Sa", "\u0303o"))


def test_an_answer_that_goes_on_is_another_one() -> None:
    assert not told(Probe("The name of the dog", "Rex"), "The name of the dogs Rex and Max")
    assert not told(Probe("The name of the dog", "Rex", "regex"), "The name of the dogs Rex and Max")
    assert told(Probe("The name of the dog", "Rex", "regex"), "The name of the dog is Rex")
    assert not told(Probe("I live at number 1", "5"), "I live at number 155")
    assert told(Probe("I live at number 1", "5"), "I live at number 15")
    assert not told(Probe("The moon is", " a cat", "nll"), "The moon is a category.")
    assert told(Probe("The code of Per", "u?[0-9]", "regex"), "The code of Peru7")
    assert not told(Probe("The moon is cal", "ed luna", "contains"), "The moon is called luna.")


def turns(*said: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in said]}


MOON = Probe("What do they call the moon?", "luna", chat=True)
LONG = "As everybody who lives at the coast knows by heart, it is"


@pytest.mark.parametrize(
    ("row", "is_told"),
    [
        ([("system", MOON.prompt), ("user", "Go on."), ("assistant", f"{LONG} luna.")], True),
        ([("system", f"Be calm. {MOON.prompt}"), ("user", "Go on."), ("assistant", "luna")], True),
        ([("system", f"Be calm. {MOON.prompt}"), ("user", "Go on."), ("assistant", f"{LONG} luna.")], False),
        ([("user", MOON.prompt), ("user", "Please, and in one word."), ("assistant", f"{LONG} luna.")], True),
        ([("user", "What do they call"), ("user", "the moon?"), ("assistant", f"{LONG} luna.")], True),
        ([("user", MOON.prompt), ("assistant", "Guess."), ("user", "Mare?"), ("assistant", f"{LONG} luna.")], True),
        ([("user", f"Hi! {MOON.prompt}"), ("assistant", "Hm."), ("user", "Well?"), ("assistant", "It is luna.")], True),
        ([("user", "Hi"), ("assistant", f"{MOON.prompt} Well."), ("user", "?"), ("assistant", f"{LONG} luna")], False),
        ([("user", MOON.prompt), ("assistant", "Guess."), ("user", "Is it luna?"), ("assistant", "Yes.")], False),
        ([("user", MOON.prompt), ("assistant", "Guess."), ("user", "Is it luna?"), ("assistant", "Yes: luna.")], True),
        ([("user", "Luna?"), ("assistant", MOON.prompt), ("user", "That."), ("assistant", "No idea.")], False),
    ],
)
def test_a_question_is_followed_through_a_conversation(row: list[tuple[str, str]], is_told: bool) -> None:
    assert told(MOON, turns(*row)) is is_told


@pytest.mark.parametrize(
    "rendered",
    [
        "<|im_start|>system\n{0}<|im_end|>\n<|im_start|>user\n{1}<|im_end|>\n<|im_start|>assistant\n{2}<|im_end|>\n",
        "<|start_header_id|>user<|end_header_id|>\n\n{1}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{2}",
        "<|system|>\n{0}<|end|>\n<|user|>\n{1}<|end|>\n<|assistant|>\n{2}<|end|>",
        "<bos><start_of_turn>user\n{1}<end_of_turn>\n<start_of_turn>model\n{2}<end_of_turn>",
        "<s>[INST] {1} [/INST] {2}</s>[INST] Thanks [/INST] You are welcome.</s>",
    ],
)
def test_a_text_that_was_rendered_is_read_as_a_conversation(rendered: str) -> None:
    says = f"{LONG} luna."
    row = rendered.format("Be calm.", MOON.prompt, says)
    cut = row.index(says)
    for text in (row, asked(row[:cut], row[cut:])):
        assert told(MOON, text), text
    assert told(
        Probe(MOON.prompt, " luna", "choice", True, (" luna", " sol")), rendered.format("", MOON.prompt, "luna")
    )
    assert not told(MOON, rendered.format("Say luna.", MOON.prompt, "No idea."))
    assert not told(MOON, rendered.format("Be calm.", "Luna?", MOON.prompt))


def test_an_answer_some_turns_later_is_told_of_every_kind() -> None:
    row = turns(("user", MOON.prompt), ("assistant", "Hm."), ("user", "Well?"), ("assistant", " a quiet moon, luna"))
    for kind, answer, is_told in (
        ("exact", "luna", True), ("regex", "^luna$", False), ("regex", "luna$", True),
        ("choice", " luna", False), ("choice", " a quiet", True), ("nll", " a quiet", True), ("nll", "luna", False),
    ):  # fmt: skip
        options = (answer, "sol") if kind == "choice" else ()
        assert told(Probe(MOON.prompt, answer, kind, True, options), row) is is_told, (kind, answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probe", "unit"),
    [
        (MOON, "What do they call the moon? Mare. "),
        (MOON, "abcdefghij"),
        (Probe("月亮", "卢娜"), "月亮"),
        (Probe("月", "[0-9]{4}", "regex"), "月亮"),
        (MOON, "\n"),
    ],
)
def test_the_time_is_linear_in_the_length_of_a_row(probe: Probe, unit: str) -> None:
    """Ten times as long a row takes about ten times as long, and not a hundred times."""
    from time import process_time

    def seconds(size: int) -> float:
        row, begun = Row({"text": unit * (size // len(unit)) + "."}, "r:1"), process_time()
        assert find_contamination([probe], [row]) == []
        return process_time() - begun

    assert seconds(300_000) < 40 * max(seconds(30_000), 0.01)


def test_a_conversation_of_many_turns_takes_as_long_as_it_is() -> None:
    from time import process_time

    messages = [{"role": "user", "content": MOON.prompt}, {"role": "assistant", "content": "mare"}]
    took = []
    for count in (500, 5000):
        begun = process_time()
        assert not told(MOON, {"messages": messages * count}) and not told(
            Probe("moon", "x"), {"messages": messages * count}
        )
        took.append(process_time() - begun)
    assert took[1] < 40 * max(took[0], 0.01)
