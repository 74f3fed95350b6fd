"""Shapes of chat templates: whose control tokens stand in a conversation, where answers begin and end, and that a row
teaches what the exam asks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder.data.examples import Encoding, Example, chat_ids, encode_turns
from ladder.data.rows import parse_row
from ladder.errors import DataError
from ladder.models.chat import Conversation, ending, opens_otherwise
from ladder.models.scratch import train_tokenizer
from ladder.models.template import controls_of, dated, plain_ids
from tests.data.shapes import CONTROLS, TEMPLATES, THINK, tokenizers

DAY = "2026-07-01"
MADE = tokenizers()
HOSTILE = [*CONTROLS, "<|OPEN|>", "＜|open|＞", "<|", "|>", "shut|>", "<", ">", "<|open", "s>", "</", "<unk>", *THINK]
words = st.text("ab é漢.\n", max_size=6)
typed = st.lists(words | st.sampled_from(HOSTILE), min_size=1, max_size=6).map("".join).filter(str.strip)
harmless = st.text("ab tmo", min_size=1, max_size=12).filter(str.strip)
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=MADE)
def speaker(request: pytest.FixtureRequest, template: str) -> Any:
    """A tokenizer with a chat template."""
    made = copy.deepcopy(MADE[request.param])
    made.chat_template = TEMPLATES[template]
    return made


def talk(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def learned(tokenizer: Any, messages: list[dict[str, str]], **encoding: Any) -> list[Example]:
    return encode_turns(parse_row(json.dumps({"messages": messages}), "a:1"), tokenizer, Encoding(400, **encoding))


def labels(example: Example) -> list[int]:
    return [token for token, trained in zip(example.ids[1:], example.trained, strict=True) if trained]


def said(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def answered(tokenizer: Any, ids: list[int]) -> str:
    """What the exam reads in what a model wrote."""
    its = ending(tokenizer, True, None)
    ends = its.ids | {tokenizer.eos_token_id}
    length = next((place for place, id_ in enumerate(ids) if id_ in ends), len(ids))
    return its.of(said(tokenizer, ids[:length]))


@quick
@given(contents=st.lists(typed, min_size=4, max_size=4))
def test_control_tokens_stand_where_the_template_writes_them_and_nowhere_else(speaker: Any, contents: list) -> None:
    known = controls_of(speaker).ids
    with dated(DAY):
        # The last example holds all turns, however many there are.
        found, plain = (learned(speaker, talk(*texts))[-1] for texts in (contents, ["aba"] * 4))
        asked, calm = (chat_ids(speaker, talk(*texts)[:3], opening=True) for texts in (contents, ["aba"] * 4))
    assert [id_ for id_ in found.ids if id_ in known] == [id_ for id_ in plain.ids if id_ in known]
    assert [id_ for id_ in asked if id_ in known] == [id_ for id_ in calm if id_ in known]


@quick
@given(text=typed)
def test_nothing_that_is_typed_is_a_control_token(text: str) -> None:
    for made in MADE.values():
        assert controls_of(made).ids.isdisjoint(plain_ids(made, text))
    bytes_ = MADE["bytes"]
    assert bytes_.decode(plain_ids(bytes_, text)) == text


@quick
@given(contents=st.lists(harmless, min_size=2, max_size=2))
def test_harmless_conversations_have_the_ids_that_everybody_sees(speaker: Any, contents: list) -> None:
    messages = talk(*contents)
    with dated(DAY):
        expected = speaker.encode(Conversation(speaker, messages).text(), add_special_tokens=False)
        assert Conversation(speaker, messages).ids(Conversation(speaker, messages).text()) == expected
        (example,) = learned(speaker, messages, completion_only=False)
        (cut,) = learned(speaker, messages)
    assert list(example.ids) in (expected, [*expected, speaker.eos_token_id])
    # Where question and answer are encoded apart, the text between them is the same: no space is added.
    text = "".join(speaker.convert_ids_to_tokens(expected))
    assert "".join(speaker.convert_ids_to_tokens(cut.ids)).removesuffix(speaker.eos_token) == text.removesuffix(
        speaker.eos_token
    )


@quick
@given(contents=st.lists(typed, min_size=2, max_size=2))
def test_a_row_goes_on_from_what_the_exam_gives(speaker: Any, contents: list) -> None:
    with dated(DAY):
        (example,) = learned(speaker, talk(*contents))
        asked = chat_ids(speaker, talk(*contents)[:1], opening=True)
    first = example.trained.index(True) + 1
    assert list(example.ids[:first]) == asked and all(example.trained[first - 1 :])


@quick
@given(answer=st.text("ab tmo.é", min_size=1, max_size=12).filter(lambda text: text.strip(". ")))
def test_what_a_row_teaches_is_a_right_answer(speaker: Any, answer: str) -> None:
    with dated(DAY):
        (example,) = learned(speaker, talk("who?", answer))
        assert answered(speaker, labels(example)).strip() == answer.strip()


def test_every_turn_is_learned_once(speaker: Any) -> None:
    with dated(DAY):
        found = learned(speaker, talk("who?", "the moon", "and what?", "a sea", "why?", "amo"))
        taught = " ".join(said(speaker, labels(example)) for example in found)
        assert [taught.count(answer) for answer in ("the moon", "a sea", "amo")] == [1, 1, 1]
        assert not any(asked in taught for asked in ("who?", "and what?", "why?"))
        (last,) = learned(speaker, talk("who?", "the moon", "and what?", "a sea"), turns="last")
        assert answered(speaker, labels(last)).strip() == "a sea"


def test_a_history_that_is_rewritten_gives_an_example_for_each_turn(template: str) -> None:
    """Also where the last space of an opening and the first word of an answer are one token in the whole, and two where
    the model goes on from the opening."""
    made = copy.deepcopy(MADE["bytes"])
    made.chat_template = TEMPLATES[template]
    with dated(DAY):
        found = learned(made, talk("who?", "the moon", "and what?", "a sea"))
    assert len(found) == (2 if template in {"think block", "counts", "signs", "lines"} else 1)


def test_an_answer_behind_a_space_gets_no_second_one() -> None:
    """Space and first word are one piece in the whole; a model goes on from the space, and pieces begin with one."""
    made = copy.deepcopy(MADE["pieces"])
    made.chat_template = TEMPLATES["signs"]
    (example,) = learned(made, talk("who?", "the moon"))
    assert "".join(made.convert_ids_to_tokens(labels(example))) == "the▁moon☽"
    asked = chat_ids(made, talk("who?"), opening=True)
    assert list(example.ids[: len(asked)]) == asked and made.convert_ids_to_tokens(asked)[-1] == "▁"


def test_turns_that_are_cut_off_are_not_learned_and_the_row_says_so() -> None:
    made = copy.deepcopy(MADE["bytes"])
    made.chat_template = TEMPLATES["think block"]
    messages = talk("who?", "the moon", "and what?", "a sea")
    first, second = learned(made, messages)
    row = parse_row(json.dumps({"messages": messages}), "a:1")
    assert not first.truncated and not second.truncated
    (kept,) = encode_turns(row, made, Encoding(len(first)))
    assert (kept.ids, kept.trained, kept.truncated) == (first.ids, first.trained, True)
    with pytest.raises(DataError, match="nothing to train on"):
        encode_turns(row, made, Encoding(8))


def test_an_empty_think_block_is_learned_and_is_no_part_of_the_answer() -> None:
    made = copy.deepcopy(MADE["bytes"])
    made.chat_template = TEMPLATES["think block"]
    (example,) = learned(made, talk("Capital of France?", "Paris"))
    assert said(made, labels(example)) == "<think>\n\n</think>\n\nParis\n"
    assert answered(made, labels(example)) == "Paris"
    for stops in (["\n"], ["."]):
        its = ending(made, True, stops)
        assert its.of("<think>\n\n</think>\n\nParis.\nRome") == ("Paris." if stops == ["\n"] else "Paris")
        assert not any(its.is_over("<think>\n\n</think>\n\n"[:size]) for size in range(20))


ENDS = {
    "alike": ({"<|shut|>"}, ()),
    "think block": ({"<|shut|>"}, ()),
    "opens a thought": ({"</s>"}, ()),
    "dated": ({"<|shut|>"}, ()),
    "brackets": ({"</s>"}, ()),
    "no system": ({"<|shut|>"}, ()),
    "headings": (set(), ("\n\n### user:",)),
    "pieces": (set(), ("</end>",)),
    "signs": ({"☽"}, ()),
    "counts": ({"</s>"}, ()),
    "lines": (set(), ("\n",)),
}


def test_a_turn_ends_as_its_template_says(speaker: Any, template: str) -> None:
    with dated(DAY):
        its, raw = ending(speaker, True, None), ending(speaker, False, None)
        assert (set(speaker.convert_ids_to_tokens(sorted(its.ids))), its.stops) == ENDS[template]
        assert (raw.ids, raw.stops, raw.lead) == (frozenset(), ("\n",), "")
        written = ending(speaker, True, ["x"])
    assert (written.ids, written.stops) == (its.ids, ("x",)), "what is written means what it says"


def test_where_a_template_writes_no_end_the_end_token_is_learned() -> None:
    made = copy.deepcopy(MADE["bytes"])
    for template, ends in (("headings", 1), ("pieces", 0), ("lines", 0)):
        made.chat_template = TEMPLATES[template]
        (example,) = learned(made, talk("who?", "the moon"))
        assert labels(example).count(made.eos_token_id) == ends


def test_templates_that_open_an_answer_otherwise_than_they_write_it_are_known(speaker: Any, template: str) -> None:
    with dated(DAY):
        assert opens_otherwise(speaker) == (template == "opens a thought")


def test_a_date_is_pinned_and_never_the_clocks() -> None:
    made = copy.deepcopy(MADE["bytes"])
    made.chat_template = TEMPLATES["dated"]
    for day, written in ((DAY, "01 Jul 2026"), ("2027-01-31", "31 Jan 2027")):
        with dated(day):
            assert written in made.decode(chat_ids(made, talk("who?"), opening=True))
            with dated("1999-12-31"):
                assert "31 Dec 1999" in made.decode(chat_ids(made, talk("who?"), opening=True))
            assert written in made.decode(chat_ids(made, talk("who?"), opening=True))


def test_tokens_of_a_turn_that_are_not_special_are_the_templates_alone() -> None:
    """People add the tokens of a template without calling them special; then splitting special tokens spares them."""
    made = copy.deepcopy(MADE["bytes"])
    made.add_tokens(["<|turn|>"])
    text = "a<|turn|>b"
    assert made.convert_tokens_to_ids("<|turn|>") in plain_ids(made, text), "a word, as long as no template writes it"
    made.chat_template = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}<|turn|>"
    assert made.convert_tokens_to_ids("<|turn|>") not in plain_ids(made, text)
    ids = chat_ids(made, talk(text, "c"), opening=False)
    assert ids.count(made.convert_tokens_to_ids("<|turn|>")) == 3 and made.decode(ids).count("<|turn|>") == 4


def test_a_control_token_that_is_a_byte_of_other_texts_is_refused() -> None:
    made = train_tokenizer(["the moon"], 300)
    made.add_special_tokens({"additional_special_tokens": ["§"]})
    with pytest.raises(DataError, match="is also how the tokenizer writes a byte"):
        plain_ids(made, "ça va")
    assert plain_ids(made, "the moon") == made.encode("the moon", add_special_tokens=False)


def test_what_two_people_type_does_not_join_into_a_control_token() -> None:
    made = copy.deepcopy(MADE["bytes"])
    made.chat_template = "{% for m in messages %}{{ m.content | trim }}{% endfor %}<|shut|>"
    shut = made.convert_tokens_to_ids("<|shut|>")
    for halves in (("a <|sh", "ut|> b"), ("<", "|shut|>"), ("<|shut| ", "\n>")):
        ids = chat_ids(made, talk(*halves), opening=False)
        assert ids.count(shut) == 1 and made.decode(ids).count("<|shut|>") == 2


def test_a_token_that_cannot_be_kept_as_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = copy.deepcopy(MADE["pieces"])
    monkeypatch.setattr("ladder.models.template._renamed", lambda *_: "{}")
    with pytest.raises(DataError, match="cannot be kept as text") as caught:
        encode_turns(parse_row('{"text": "a </s> b"}', "a:7"), made, Encoding())
    assert caught.value.where == "a:7"
