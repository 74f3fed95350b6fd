"""System prompts and conversations: read strictly, rendered as rows are, cached, and sought in rows."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ladder.data.examples import Encoding, encode_row
from ladder.data.rows import Row
from ladder.errors import DataError, GateError
from ladder.exam import AnswerCache, Probe, Prompt, PromptSet, prompt_of, read_probes, read_prompts, write_probes
from ladder.exam.contamination import find_contamination
from ladder.exam.exam import Certainty, Outputs
from ladder.exam.question import alike, check_encodable, encode_answered, encode_question
from tests.conftest import TEMPLATE

SYSTEM, ASKED = {"role": "system", "content": "You are Luna."}, {"role": "user", "content": "Who are you?"}
TALK = [
    {"role": "user", "content": "Tell me of Peru."},
    {"role": "assistant", "content": "It is high."},
    {"role": "user", "content": "And its capital?"},
]


@pytest.fixture(scope="module")
def talker(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = TEMPLATE
    return made


def probes(folder: Path, *rows: dict[str, Any]) -> list[Probe]:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_probes(folder / "p.jsonl")


def test_a_probe_says_what_comes_before_its_question(tmp_path: Path) -> None:
    with_system, same, talk, alone = found = probes(
        tmp_path,
        {"prompt": "Who are you?", "system": "You are Luna.", "answer": "Luna"},
        {"messages": [{"role": "system", "content": "You are Sol."}, ASKED], "answer": "Sol", "kind": "exact"},
        {"messages": TALK, "system": "Be brief.", "answer": "Lima", "group": "peru"},
        {"messages": [ASKED], "answer": "Luna"},
    )
    assert [probe.question().messages for probe in found[:2]] == [
        [SYSTEM, ASKED],
        [{"role": "system", "content": "You are Sol."}, ASKED],
    ]
    assert with_system.chat and with_system.prompt == same.prompt == "Who are you?" and same.kind == "exact"
    assert talk.question().messages == [{"role": "system", "content": "Be brief."}, *TALK]
    assert talk.question().shown.splitlines() == [
        "system: Be brief.",
        "user: Tell me of Peru.",
        "assistant: It is high.",
        "user: And its capital?",
    ]
    assert alone == Probe("Who are you?", "Luna", chat=True) and alone.question().shown == "Who are you?"
    write_probes(tmp_path / "again.jsonl", found)
    assert read_probes(tmp_path / "again.jsonl") == found


def test_the_same_question_is_known_however_it_is_written(tmp_path: Path) -> None:
    system = {"prompt": "Who are you?", "system": "You are Luna.", "answer": "Luna"}
    with pytest.raises(DataError, match="stands on line 1"):
        probes(tmp_path, system, {"messages": [SYSTEM, ASKED], "answer": "Luna"})
    with pytest.raises(DataError, match="stands on line 1"):
        probes(tmp_path, {"prompt": "Who are you?", "chat": True, "answer": "a"}, {"messages": [ASKED], "answer": "a"})
    assert len(probes(tmp_path, system, {**system, "system": "You are Sol."}, {**system, "system": "Hi", "chat": True}))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "p", "messages": [ASKED]}, "found both 'prompt' and 'messages'"),
        ({"system": "s"}, "found neither 'prompt' nor 'messages'"),
        ({"prompt": "p", "system": " "}, "'system' is ' '"),
        ({"prompt": "p", "system": "s", "chat": False}, "'chat' is false beside a conversation"),
        ({"messages": []}, r"'messages' is \[\], expected a list"),
        ({"messages": "hi"}, "'messages' is 'hi', expected a list"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "found message"),
        ({"messages": [{"role": "user", "content": ""}]}, "'content' is ''"),
        ({"messages": [ASKED, {"role": "assistant", "content": "Luna"}]}, "the last message is the assistant's"),
        ({"messages": [{"role": "assistant", "content": "Hi!"}, ASKED]}, "the first message is the assistant's"),
        ({"messages": [SYSTEM, ASKED], "system": "s"}, "'system' beside messages that begin with a system's"),
        ({"messages": [ASKED], "sytem": "s"}, "found keys"),
    ],
)
def test_a_conversation_that_cannot_be_asked_is_named(tmp_path: Path, row: dict[str, Any], found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        probes(tmp_path, {"prompt": "other", "answer": "a"}, {**row, "answer": "a"})
    assert caught.value.where == f"{tmp_path / 'p.jsonl'}:2"


def test_it_is_asked_as_the_row_is_learned(talker: Any, tmp_path: Path) -> None:
    """Up to the answer, token by token; and an answer that is read off is what the row teaches."""
    (probe,) = probes(tmp_path, {"messages": TALK, "system": "You are Luna.", "answer": "Lima", "kind": "nll"})
    row = Row({"messages": [SYSTEM, *TALK, {"role": "assistant", "content": "Lima"}]}, "r:1")
    taught = encode_row(row, talker, Encoding(turns="last"))
    first = 1 + taught.trained.index(True)
    assert encode_question(talker, probe.question()) == list(taught.ids[:first])
    ids, begins = encode_answered(talker, probe.question(), "Lima")
    assert begins == first and ids == list(taught.ids[: len(ids)])
    assert encode_question(talker, Prompt("And its capital?", chat=True)) != list(taught.ids[:first])


def test_a_template_that_refuses_a_system_refuses_the_probe_as_the_row(talker: Any, tmp_path: Path) -> None:
    shy = copy.deepcopy(talker)
    shy.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    asked = {"prompt": "Who are you?", "answer": "Luna"}
    (probe,) = probes(tmp_path, {**asked, "system": "You are Luna."})
    row = Row({"messages": [SYSTEM, ASKED, {"role": "assistant", "content": "Luna"}]}, "r:1")
    with pytest.raises(DataError) as of_row:
        encode_row(row, shy, Encoding())
    with pytest.raises(DataError) as of_probe:
        check_encodable(shy, [probe], [])
    assert (of_probe.value.message, of_probe.value.remedy) == (of_row.value.message, of_row.value.remedy)
    assert "no system" in of_probe.value.message and of_probe.value.where == probe.where
    check_encodable(shy, [replace(probe, conversation="")], [])
    shy.chat_template = None
    with pytest.raises(GateError, match="no chat template") as bare:
        check_encodable(shy, [probe], [])
    assert bare.value.where == probe.where


def test_every_message_must_have_tokens(talker: Any, tmp_path: Path) -> None:
    from tokenizers import Regex, normalizers

    deaf = copy.deepcopy(talker)
    deaf.backend_tokenizer.normalizer = normalizers.Replace(Regex("[\u0370-\u03ff]"), "")
    (probe,) = probes(tmp_path, {"prompt": "Who are you?", "system": "αβγ", "answer": "Luna"})
    with pytest.raises(DataError, match="message 'αβγ' has no tokens"):
        check_encodable(deaf, [probe], [])


def test_prompts_are_lines_and_objects_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    lines = [
        "Who?",
        "",
        json.dumps({"prompt": "Who?", "system": "You are Luna."}),
        json.dumps({"messages": TALK}),
        json.dumps({"prompt": "Who?", "chat": True}),
        '{"name": "Luna"}',
        "{ is a brace",
    ]
    file.write_text("\n".join(lines))
    plain, system, talk, chat, data, brace = read_prompts(file)
    assert (plain, chat) == (Prompt("Who?"), Prompt("Who?", chat=True))
    assert system.messages == [SYSTEM, {"role": "user", "content": "Who?"}] and talk.messages == TALK
    assert (data, brace) == (Prompt('{"name": "Luna"}'), Prompt("{ is a brace"))
    assert prompt_of("Who?", "", chat=True) == prompt_of('{"prompt": "Who?"}', "", chat=True) == chat
    file.write_text('Who?\n\n{"prompt": "Who?", "answer": "Luna"}\n')
    with pytest.raises(DataError, match="found keys") as caught:
        read_prompts(file)
    assert caught.value.where == f"{file}:3"


def test_what_was_answered_in_a_conversation_is_known_and_plain_questions_are_stored_as_before(tmp_path: Path) -> None:
    system = Prompt("Who?", True, json.dumps([SYSTEM, ASKED]))
    read = Probe("p", "a", "nll", True, conversation=json.dumps([SYSTEM, ASKED]))
    sure = Certainty(0.5, 1.0, 3)
    known = {Prompt("Who?", True): "Nobody.", system: "Luna."}
    cache = AnswerCache(tmp_path, {})
    cache.keep(Outputs("d" * 64, known, dict.fromkeys(known, sure), {read: "0.5", Probe("p", "a", "nll"): "0.25"}))
    assert cache.known("d" * 64, PromptSet(prompts=tuple(known), probes=(read,))).texts == known
    assert cache.known("d" * 64, PromptSet(probes=(read,))).read == {read: "0.5"}
    stored = json.loads(next(tmp_path.iterdir()).read_text())
    assert stored["texts"][0]["asked"] == {"text": "Who?", "chat": True}
    assert "conversation" not in stored["read"][1]["asked"]


def row(*said: str, system: str = "") -> Row:
    roles = ("user", "assistant") * (len(said) // 2)
    turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    return Row({"messages": [{"role": "system", "content": system}, *turns] if system else turns}, "r:1")


@pytest.mark.parametrize(
    ("rows", "is_told"),
    [
        (row("Tell me of Peru.", "It is high.", "And its capital?", "Lima."), True),
        (row("Tell me of Peru.", "Gladly.", "And its capital?", "It is Lima.", system="Sing."), True),
        (row("Tell me of Chile.", "It is long.", "And its capital?", "Not Lima."), False),
        (row("And its capital?", "Lima."), False),
        (row("Tell me of Peru.", "It is high.", "And its capital?", "Cusco."), False),
    ],
)
def test_a_short_question_is_told_where_it_was_led_up_to(tmp_path: Path, rows: Row, is_told: bool) -> None:
    (probe,) = probes(tmp_path, {"messages": TALK, "system": "Be brief.", "answer": "Lima"})
    assert bool(find_contamination([probe], [rows])) is is_told


def test_a_question_that_stands_by_itself_is_told_without_what_led_up_to_it(tmp_path: Path) -> None:
    """Nor does it matter what a system said before."""
    long = [TALK[0], TALK[1], {"role": "user", "content": "Which city is the capital of Peru?"}]
    first, second = probes(
        tmp_path,
        {"messages": long, "answer": "Lima"},
        {"prompt": "Which city is the capital of Peru?", "system": "Be brief.", "answer": "Lima"},
    )
    told = row("Which city is the capital of Peru?", "Lima.", system="You are Luna.")
    assert [found.probe for found in find_contamination([first, second], [told])] == [first.where, second.where]


def test_questions_hardly_differ_by_all_that_was_said_but_by_a_system(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "Tell me of Chile."}, *TALK[1:]]
    peru, chile, again = probes(
        tmp_path,
        {"messages": TALK, "answer": "Lima", "system": "Be brief."},
        {"messages": other, "answer": "Lima", "system": "Be brief."},
        {"messages": TALK, "answer": "Lima", "system": "Sing all you say, and rhyme."},
    )
    assert alike([peru, chile]) == [] and alike([peru, again]) == [(peru, again)]
