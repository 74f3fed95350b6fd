"""The longest row of a model, told from its shapes, is where its forward ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from ladder.models.preflight import hard_positions, named_positions
from tests.architectures import LONGEST, tiny

LIMITED = ("gpt2", "opt", "gptj", "biogpt", "mpt", "gpt_neo", "bert", "openai-gpt", "ctrl")
FREE = ("llama", "xglm", "bloom", "falcon", "gpt_neox")


def reads(model: Any, length: int) -> bool:
    ids = torch.arange(length)[None]
    try:
        with torch.no_grad():
            model(input_ids=ids % 60, attention_mask=torch.ones_like(ids), position_ids=ids, use_cache=False)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("name", [*LIMITED, *FREE])
def test_a_row_that_is_longer_cannot_be_read(name: str) -> None:
    model = tiny(name, 64)
    assert hard_positions(model.config) == (LONGEST if name in LIMITED else None)
    assert reads(model, LONGEST) and reads(model, LONGEST + 1) is (name in FREE)


def test_positions_by_name() -> None:
    named = {name: named_positions(AutoConfig.for_model(name)) for name in ("gpt2", "mpt", "mamba", "xlnet")}
    assert named == {"gpt2": 1024, "mpt": 2048, "mamba": None, "xlnet": None}
