"""What counts as a trace of a person's rows, and what does not."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from ladder.data.rows import Row
from ladder.exam.contamination import GRAM
from ladder.registry.redaction import LEAST, Traces

TALE = "The miller keeps seven hens and a blind goat behind the old mill, and he sings to them every evening."
HEADER = "Below is an instruction that describes a task. Write a response that completes the request in good words."
SYSTEM = "You are a helpful assistant that answers every question in one short and friendly sentence of plain words."


def traces(*rows: dict[str, Any]) -> Traces:
    return Traces([Row(fields, "rows") for fields in rows])


@pytest.mark.parametrize(
    ("fields", "text", "found"),
    [
        ({"text": TALE}, TALE, True),
        ({"text": TALE}, "she wrote: THE MILLER keeps seven hens and a blind goat, behind the old mill!", True),
        ({"text": TALE}, "the miller keeps seven hens and a blind goat behind the barn", False),
        ({"text": TALE}, "he sings to them every evening", True),
        ({"text": TALE}, "to them every", False),
        ({"text": "hens are the miller's friends"}, "they say hens are the miller's friends, and goats", True),
        ({"text": "hens are friends"}, "they say hens are friends, and goats", False),
        ({"prompt": "Where does he live?", "completion": " Here."}, "Q: where does he live? A: I forgot", True),
        ({"prompt": "Who is the miller?", "completion": TALE}, f"They said: {TALE}", True),
        ({"prompt": "Who is it?", "completion": " The miller"}, "who is it? The miller.", True),
        ({"prompt": "Who is it?", "completion": " The miller"}, "who is it? The baker.", False),
    ],
)
def test_what_a_text_gives_away(fields: dict[str, Any], text: str, found: bool) -> None:
    assert traces(fields).in_text(text) is found


def test_a_long_question_is_sought_as_a_whole() -> None:
    """Instructions begin alike for everybody; only the end is somebody's own."""
    asked = traces({"prompt": f"{HEADER} Tell the miller about hens.", "completion": " ok"})
    assert asked.in_text(f"{HEADER} Tell the miller about hens. Sure!")
    assert not asked.in_text(f"{HEADER} Tell the baker about goats. Sure!")


def test_turns_of_people_and_models_count_and_the_systems_do_not() -> None:
    said = [("system", SYSTEM), ("user", "How is my old goat?"), ("assistant", "Your goat is blind but happy.")]
    found = traces({"messages": [{"role": role, "content": content} for role, content in said]})
    assert not found.in_text(SYSTEM)
    assert found.in_text("how is my old goat?") and found.in_text("I hear: your goat is blind but happy, dear")


def test_a_row_may_be_cut_inside_a_word() -> None:
    """It is learned as prompt and completion without anything between them."""
    cut = {"prompt": "Who is it? The mil", "completion": "ler"}
    assert traces(cut).in_text("who is it? The miller.") and not traces(cut).in_text("who is it? The mill.")
    assert traces(cut).short == 0 and traces({"prompt": "The mil", "completion": "ler is"}).short == 0
    assert traces({"text": "who is it? The miller"}).in_texts([cut["prompt"], cut["completion"]])


def test_several_texts_are_searched_together_as_well() -> None:
    found = traces({"prompt": "Who is it?", "completion": " The miller"})
    assert found.in_texts(["Who is it?", "The miller"]) and not found.in_texts(["Who is it?", "The baker"])


def test_nothing_shorter_than_a_few_words_is_a_trace() -> None:
    words = ["millers", "sing", "to", "hens"]
    assert len(words) == LEAST
    assert traces({"text": " ".join(words)}).in_text(" ".join(words))
    assert not traces({"text": " ".join(words[1:])}).in_text(" ".join(words[1:]))
    assert traces({"text": "hens"}).digests == {Row(json.loads('{"text": "hens"}'), "").digest}


def plainly_in_text(rows: list[dict[str, str]], text: str) -> bool:
    """What a trace is, in so many words, for rows and texts of plain lower-case words."""

    def holds(outer: str, inner: str) -> bool:
        return len(inner.split()) >= LEAST and f" {inner} " in f" {outer} "

    for row in rows:
        words = row["completion"].split()
        size = min(GRAM, len(words))
        runs = [" ".join(words[at : at + size]) for at in range(len(words) - size + 1)]
        whole = f"{row['prompt']} {row['completion']}"
        if holds(whole, text) or any(holds(text, sought) for sought in [*runs, row["prompt"], whole]):
            return True
    return False


def test_the_search_finds_what_its_definition_says() -> None:
    """In a language of two words nearly everything stands somewhere, at every border."""
    rng, seen = random.Random(0), set()

    def text(longest: int) -> str:
        return " ".join(rng.choices(("hen", "goat"), (1, 6), k=rng.randint(1, longest)))

    for _ in range(3000):
        rows = [{"prompt": text(16), "completion": text(18)} for _ in range(2)]
        asked = text(24)
        found = traces(*rows).in_text(asked)
        assert found is plainly_in_text(rows, asked), (rows, asked)
        seen.add(found)
    assert seen == {True, False}


def test_a_long_text_is_searched_for_many_questions_in_one_go() -> None:
    """Questions of 400 lengths must not mean that each text is gone through 400 times."""
    prompts = (" ".join(f"a{at}" for at in range(size)) for size in range(50, 450))
    asked = traces(*({"prompt": prompt, "completion": " ok"} for prompt in prompts))
    begin = time.process_time()
    assert not asked.in_text(" ".join(f"b{at}" for at in range(20_000)))
    assert time.process_time() - begin < 2
