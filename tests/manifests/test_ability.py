"""General ability of SmolLM2's generations: the arithmetic, on a model that is small enough."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.models.load import load_model

PATH = Path(__file__).parents[2] / "manifests" / "smollm2" / "ability.py"


@pytest.fixture(scope="module")
def ability() -> Any:
    spec = importlib.util.spec_from_file_location("smollm2_ability", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_question_from_its_letters(ability: Any) -> None:
    fields = {"question": "fog is near: ", "options": "\nA. a marsh\nB. a. b. c \nC. a desert", "answer": "B. a. b. c "}
    assert ability.question(fields) == ability.Question("fog is near:", ("a marsh", "a. b. c", "a desert"), 1)


def test_windows_are_spread(ability: Any) -> None:
    assert ability.windows(range(100), 10, 3) == [list(range(s, s + 10)) for s in (0, 30, 60)]
    assert ability.windows(range(10), 10, 3) == [list(range(10))] and ability.windows(range(9), 10, 3) == []


def test_surprisal_and_the_answer(ability: Any, tokenizer: Any, parent: Path) -> None:
    model, ids = load_model(parent), [1, 70, 80, 90]
    log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    expected = torch.tensor([-log_p[place, token].item() for place, token in enumerate(ids[1:])])
    assert torch.allclose(ability.surprisals(model, ids), expected, atol=1e-5)
    options = ("the sea", "luna", "a quiet friend of the moon")
    prompt = [1, *tokenizer.encode("Question: who?\nAnswer:", add_special_tokens=False)]
    costs = []
    for option in options:
        said = tokenizer.encode(f" {option}", add_special_tokens=False)
        costs.append(ability.surprisals(model, prompt + said)[-len(said) :].mean().item())
    assert ability.answer(model, tokenizer, ability.Question("who?", options, 0)) == costs.index(min(costs))


def test_the_table_compares_with_the_first(ability: Any) -> None:
    one, two = ability.Ability((2.0, 4.0), (1.0, 0.0)), ability.Ability((2.5, 4.5), (1.0, 1.0))
    _, first, second = ability.table({"G000": one, "G001": two})
    assert first.split() == ["G000", "3.000", "0.500"]
    assert "3.500  (+0.500 ± 0.000)" in second and "1.000  (+0.500 ± 0.980)" in second
