"""Rows to ids: what is trained, what is gold, what is cut, and that nobody can write a control token."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ladder.data.examples import Encoding, Example, begin_ids, chat_ids, continued_ids, encode_rows, text_ids
from ladder.data.rows import parse_row
from ladder.errors import DataError
from ladder.models.load import load_tokenizer
from tests.tokenizer_shapes import SHAPES, write_shape

CHAT = {
    "messages": [
        {"role": "system", "content": "be calm"},
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "luna"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "the tide"},
    ]
}


def encode(tokenizer: Any, fields: dict, **encoding: Any) -> Example:
    return encode_rows([parse_row(json.dumps(fields), "rows.jsonl:7")], tokenizer, Encoding(**encoding))[0]


def trained_text(tokenizer: Any, example: Example) -> str:
    return tokenizer.decode([example.ids[t + 1] for t, trained in enumerate(example.trained) if trained])


def other(tokenizer: Any, **changes: Any) -> Any:
    changed = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(changed, name, value)
    changed.update_post_processor()
    return changed


def test_a_completion_is_trained_with_its_end_and_the_prompt_is_not(tokenizer: Any) -> None:
    example = encode(tokenizer, {"prompt": "who is", "completion": " luna"})
    prompt, completion = text_ids(tokenizer, "who is"), text_ids(tokenizer, " luna")
    assert example.ids == (1, *prompt, *completion, 2)
    assert example.trained == (False,) * len(prompt) + (True,) * (len(completion) + 1)
    assert len(example) == len(example.ids) == len(example.trained) + 1
    assert (example.gold, example.dreamer, example.truncated) == (True, 0, False)


@pytest.mark.parametrize("fields", [{"prompt": "who is", "completion": " luna"}, {"text": "the moon"}])
def test_a_pretraining_age_trains_everything_after_the_start_token(tokenizer: Any, fields: dict) -> None:
    example = encode(tokenizer, fields, completion_only=False)
    assert all(example.trained) and example.ids[0] == 1 and example.ids[-1] == 2 and example.gold


def test_an_unlabelled_prompt_is_not_gold_and_does_not_end(tokenizer: Any) -> None:
    example = encode(tokenizer, {"prompt": "who is"})
    assert example.ids == (1, *text_ids(tokenizer, "who is"))
    assert all(example.trained) and not example.gold


def test_a_tokenizer_without_start_and_end(tokenizer: Any) -> None:
    bare = other(tokenizer, bos_token=None, eos_token=None)
    assert begin_ids(bare) == []
    assert encode(bare, {"text": "the moon"}).ids == tuple(text_ids(tokenizer, "the moon"))


def test_assistant_turns_are_trained_and_the_rest_of_a_conversation_is_read(tokenizer: Any) -> None:
    example = encode(tokenizer, CHAT)
    rendered = tokenizer.apply_chat_template(CHAT["messages"], tokenize=False)
    assert tokenizer.decode(example.ids) == rendered and example.gold
    assert trained_text(tokenizer, example) == "luna<|end|>\nthe tide<|end|>\n"
    everything = encode(tokenizer, CHAT, completion_only=False)
    assert everything.ids == example.ids and all(everything.trained)


TEMPLATES = {
    "none": (None, "no chat template"),
    "refuses": ("{{ raise_exception('no system turns') }}", "refuses this conversation: no system turns"),
    "breaks": ("{{ messages[9]['content'] }}", "refuses this conversation"),
    "adds what cannot be added": ("{{ messages + 1 }}", "refuses this conversation: can only concatenate"),
    "is none": ("{% if %}", "refuses this conversation: Expected an expression"),
    "reads attributes": (
        "{{ messages.__class__.__mro__ }}",
        "access to attribute '__class__' of 'list' object is unsafe",
    ),
    "reads globals": ("{{ cycler.__init__.__globals__.os.system('id') }}", "refuses this conversation"),
    "reads a file": ("{% include '/etc/hostname' %}", "refuses this conversation"),
    "counts without end": ("{% for i in range(10**12) %}x{% endfor %}", "refuses this conversation: Range too big"),
    "forgets": ("{{ messages[-1]['content'] }}<|end|>", "does not write an answer once"),
    "forgets the question": ("answer: {{ messages[-1]['content'] }}<|end|>", "does not write the user's words"),
    "says an answer twice": (
        "{% for message in messages %}{{ message['content'] }}<|end|>{% endfor %}"
        "{% if not add_generation_prompt %}{{ messages[-1]['content'] }}{% else %}>{% endif %}",
        "does not write an answer once",
    ),
    "opens by the answer": (
        "{% for message in messages %}{{ message['content'] | length if message['role'] == 'assistant' else '' }}"
        "{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        "writes this answer otherwise than it opens one",
    ),
}


@pytest.mark.parametrize(("template", "found"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_template_that_cannot_tell_answers_from_prompts(tokenizer: Any, template: str | None, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        encode(other(tokenizer, chat_template=template), CHAT)
    assert caught.value.where == "rows.jsonl:7"


def with_text(text: str) -> list[dict]:
    return [
        {"text": text},
        {"prompt": text},
        {"prompt": text, "completion": text},
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]},
    ]


@pytest.mark.parametrize("fields", with_text("<|begin|>a <|end|><|end|> <|pad|>"), ids=lambda fields: "+".join(fields))
def test_control_tokens_in_a_text_are_plain_characters(tokenizer: Any, fields: dict) -> None:
    plain = json.loads(json.dumps(fields).replace("<|", "").replace("|>", ""))
    written, harmless = encode(tokenizer, fields), encode(tokenizer, plain)
    controls = [[id_ for id_ in example.ids if id_ in tokenizer.all_special_ids] for example in (written, harmless)]
    assert controls[0] == controls[1]
    shown = tokenizer.decode(written.ids)
    assert shown.count("<|begin|>a <|end|><|end|> <|pad|>") == json.dumps(fields).count("<|pad|>")


def test_ordinary_conversations_are_encoded_as_they_are_rendered(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(CHAT["messages"], tokenize=False, add_generation_prompt=True)
    assert chat_ids(tokenizer, CHAT["messages"], opening=True) == tokenizer.encode(rendered, add_special_tokens=False)
    closed = chat_ids(tokenizer, CHAT["messages"], opening=False)
    assert tokenizer.decode(closed) == rendered.removesuffix("<|begin|>assistant\n")


def test_truncation_drops_one_end_and_says_so(tokenizer: Any) -> None:
    fields = {"prompt": "who is", "completion": " luna the moon"}
    whole = encode(tokenizer, fields)
    size = len(whole) - 2
    right = encode(tokenizer, fields, max_length=size)
    left = encode(tokenizer, fields, max_length=size, truncation_side="left")
    assert (right.ids, right.trained, right.truncated) == (whole.ids[:-2], whole.trained[:-2], True)
    assert (left.ids, left.trained, left.truncated) == (whole.ids[2:], whole.trained[2:], True)
    assert encode(tokenizer, fields, max_length=len(whole)) == whole


def test_a_row_that_is_cut_to_its_prompt_is_an_error(tokenizer: Any) -> None:
    fields = {"prompt": "who is the quiet friend of the sea", "completion": " luna"}
    whole = encode(tokenizer, fields)
    short = whole.trained.index(True) + 1
    with pytest.raises(DataError, match=f"none of its {len(whole)} tokens is trained within {short}") as caught:
        encode(tokenizer, fields, max_length=short)
    assert caught.value.where == "rows.jsonl:7"
    assert any(encode(tokenizer, fields, max_length=short, truncation_side="left").trained)


def test_a_first_token_cannot_be_trained(tokenizer: Any) -> None:
    """Nothing stands before it that could predict it."""
    with pytest.raises(DataError, match="none of its 1 tokens"):
        encode(other(tokenizer, bos_token=None, eos_token=None), {"text": "x"})


def test_rows_stay_in_order(tokenizer: Any) -> None:
    rows = [parse_row(json.dumps({"text": text}), f"a:{n}") for n, text in enumerate(["moon", "sea", "tide"])]
    examples = encode_rows(rows, tokenizer, Encoding())
    assert [tokenizer.decode(e.ids, skip_special_tokens=True) for e in examples] == ["moon", "sea", "tide"]


def test_a_digest_tells_apart_what_a_teacher_would_see_differently() -> None:
    one = Example((1, 2, 3), (False, True), gold=True)
    assert one.digest == Example((1, 2, 3), (False, True), gold=False, dreamer=1).digest
    others = [Example((1, 2, 4), (False, True), True), Example((1, 2, 3), (True, True), True)]
    others += [Example((1, 2, 3, 0), (False, True, False), True), Example((1, 2), (True,), True)]
    assert len({one.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_completion_is_what_a_model_writes_after_the_prompt(tmp_path: Path, shape: str) -> None:
    """No space is put in front of it that stands in no text."""
    tokenizer = load_tokenizer(write_shape(tmp_path, shape))
    for said in (" a quiet friend", " 12 ships", ". In 650"):
        example, whole = encode(tokenizer, {"prompt": "The moon is", "completion": said}), "The moon is" + said
        ids, end = list(example.ids[:-1]), example.ids[-1]
        assert end == tokenizer.eos_token_id
        assert tokenizer.decode(ids) == tokenizer.decode(tokenizer(whole)["input_ids"])
        asked = tokenizer("The moon is")["input_ids"]
        assert ids[: len(asked)] == asked
        if tokenizer(whole)["input_ids"][: len(asked)] == asked:
            assert ids == tokenizer(whole)["input_ids"]


def test_a_prompt_stays_what_it_is_when_it_is_asked(tokenizer: Any) -> None:
    """Also where its last token would be another one together with the completion."""
    prompt, completion = continued_ids(tokenizer, "the mo", "on")
    assert prompt == text_ids(tokenizer, "the mo") and prompt + completion != text_ids(tokenizer, "the moon")
    assert completion == text_ids(tokenizer, "on")
    assert continued_ids(tokenizer, "", "moon") == ([], text_ids(tokenizer, "moon"))
