"""Reading rows: as one row at a time would be read, whatever the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ladder.errors import GateError
from ladder.exam import question
from ladder.exam.exam import Prompt
from ladder.exam.question import encode_question

PROMPTS = [Prompt(text) for text in ("the", "what is the capital of peru? and of france?", "a cat sat", "so it was!")]


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_entropy_of_each_next_token(model: Any, tokenizer: Any, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "PROMPTS_AT_ONCE", at_once)
    found = question.prompt_entropies(model, tokenizer, PROMPTS)
    for prompt, nats in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            logits_TV = model(torch.tensor([encode_question(tokenizer, prompt)])).logits[0]
        expected = torch.distributions.Categorical(logits=logits_TV).entropy()
        assert nats == pytest.approx(expected.tolist(), abs=1e-5)


def test_no_prompts_no_entropy(model: Any, tokenizer: Any) -> None:
    assert question.prompt_entropies(model, tokenizer, []) == []


def test_logits_that_are_not_finite_are_refused(model: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[70] = 3e38
    with pytest.raises(GateError, match="logits are not finite"):
        question.prompt_entropies(model, tokenizer, PROMPTS)
