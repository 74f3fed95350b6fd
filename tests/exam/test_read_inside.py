"""What is read inside while a model is asked: of its own answers, once, and remembered by what it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.concepts.layers import residuals
from ladder.concepts.vectors import Facts, Vectors
from ladder.data.prompts import Prompt
from ladder.errors import GateError, ModelError
from ladder.exam import AnswerCache, Exam, Readout
from ladder.exam.ask import run_prompts
from ladder.exam.question import encode_answered, encode_question
from ladder.manifest.schema import Decoding
from ladder.models import EnsembleSpec, load_model, load_tokenizer

PROMPTS = (Prompt("the moon"), Prompt("who is luna?"), Prompt("the tide"))


def exam_of(width: int, position: Any = "answer", digest: str = "d") -> Exam:
    generator = torch.Generator().manual_seed(0)
    vectors = Vectors(("calm", "glad"), {0: torch.randn(2, width, generator=generator)}, Facts("m", "c"))
    readout = Readout(PROMPTS, (0,), position, digest, vectors)
    return Exam(tone_prompts=PROMPTS, decoding=Decoding(max_new_tokens=6, stop=[]), readout=readout)


@pytest.mark.parametrize("position", ["answer", "prompt"])
def test_answers_are_read_where_they_stand(parent: Path, position: Any) -> None:
    exam = exam_of(32, position)
    answers = exam.answers(run_prompts(parent, exam.prompt_set()))
    model, tokenizer = load_model(parent), load_tokenizer(parent)
    assert exam.readout and any(answers.tone)
    for prompt, said, found in zip(PROMPTS, answers.tone, answers.readings, strict=True):
        ids, start = (
            encode_answered(tokenizer, prompt, said)
            if position == "answer"
            else (encode_question(tokenizer, prompt), -1)
        )
        if start == len(ids):
            assert found == ()
            continue
        with torch.no_grad(), residuals(model, [0]) as left:
            model(torch.tensor([ids]))
        expected = exam.readout.vectors.by_layer[0] @ left[0][0, start:].mean(0)
        assert found[0] == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_was_read_is_not_read_again(parent: Path, tmp_path: Path) -> None:
    exam, cache = exam_of(32), AnswerCache(tmp_path, {})
    outputs = run_prompts(parent, exam.prompt_set().answers_alone())
    cache.keep(outputs)
    known = cache.known(outputs.digest, exam.prompt_set())
    assert known.readings == outputs.readings
    assert exam.prompt_set().answers_alone().without(known).size == 0
    other = exam_of(32, digest="another folder").prompt_set().answers_alone()
    left = other.without(cache.known(outputs.digest, other))
    assert left.prompts == PROMPTS and left.readout and left.readout.prompts == PROMPTS  # Answered again, to be read.
    asked = exam_of(32, "prompt").prompt_set().answers_alone()
    assert asked.without(cache.known(outputs.digest, asked)).prompts == ()
    bare = replace(exam, readout=None).prompt_set().answers_alone()
    assert (
        bare.without(cache.known(outputs.digest, bare)).size == 0 and cache.known(outputs.digest, bare).readings == {}
    )


def test_vectors_of_another_width_and_several_models_are_refused(parent: Path, grandparent: Path) -> None:
    with pytest.raises(ModelError, match="vectors of width 16, and this model's hidden states have 32"):
        run_prompts(parent, exam_of(16).prompt_set())
    with pytest.raises(GateError, match="no one residual stream"):
        run_prompts(EnsembleSpec((parent, grandparent), (0.5, 0.5)), exam_of(32).prompt_set())
