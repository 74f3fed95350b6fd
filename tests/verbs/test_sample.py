"""What `ladder sample` shows is what an exam reads."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import UsageError
from ladder.exam.ask import answer_prompts
from ladder.exam.exam import Prompt
from ladder.manifest.schema import Decoding
from ladder.models.intake import save_model
from ladder.models.load import load_model, load_tokenizer
from ladder.system.files import save_folder
from ladder.verbs.sample import answer, given

PROMPTS = ("who is luna?", "the <|end|>moon")


def test_samples_are_what_an_exam_reads(make_folder: Callable[..., Path], tokenizer: Any, tmp_path: Path) -> None:
    """Behind what the template leads with, and up to the token that ends a turn, whether or not it ends a text."""
    other, model = copy.deepcopy(tokenizer), load_model(make_folder(3))
    other.chat_template = tokenizer.chat_template.replace("<|end|>", "<|pad|>")
    folder = save_folder(tmp_path / "model", lambda target: save_model(target, model, other))
    for chat in (True, False):
        prompts = [Prompt(text, chat) for text in PROMPTS]
        expected = answer_prompts(model, other, prompts, Decoding(max_new_tokens=12, stop=[]))
        assert answer(folder, PROMPTS, chat, 12, 0.0, 0) == [text.strip() for text in expected]


def test_an_answer_ends_with_the_text_that_the_template_ends_turns_with(
    make_folder: Callable[..., Path], tokenizer: Any, tmp_path: Path
) -> None:
    """As in an exam, where the template has no control token at all."""
    other, model = copy.deepcopy(tokenizer), load_model(make_folder(3))
    other.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\ufffd{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    folder = save_folder(tmp_path / "model", lambda target: save_model(target, model, other))
    (expected,) = answer_prompts(model, other, [Prompt(PROMPTS[0], chat=True)], Decoding(max_new_tokens=40))
    (whole,) = answer_prompts(model, other, [Prompt(PROMPTS[0], chat=True)], Decoding(max_new_tokens=40, stop=[]))
    assert answer(folder, PROMPTS[:1], True, 40, 0.0, 0) == [expected.strip()]
    assert len(expected) < len(whole)


def test_a_system_speaks_before_each_users_turn(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3)
    system = {"role": "system", "content": "You are Luna."}
    prompts = [
        Prompt(text, True, json.dumps([system, {"role": "user", "content": text}], sort_keys=True)) for text in PROMPTS
    ]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    expected = answer_prompts(model, tokenizer, prompts, Decoding(max_new_tokens=12, stop=[]))
    found = answer(folder, PROMPTS, False, 12, 0.0, 0, system="You are Luna.")
    assert found == [text.strip() for text in expected] != answer(folder, PROMPTS, True, 12, 0.0, 0)


def test_a_dash_is_what_stands_on_standard_input() -> None:
    assert given(["a", "-", "b"], io.StringIO("first line\nsecond line\n")) == ["a", "first line\nsecond line", "b"]
    assert given(["a"], io.StringIO("unread")) == ["a"]
    for prompts, text in ((["-"], " \n"), (["-", "-"], "text")):
        with pytest.raises(UsageError):
            given(prompts, io.StringIO(text))
