"""Generation by ladder's settings; the folder's own are put back."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ladder.models.generation import end_ids, generation_settings, pad_id


def test_settings_hold_inside_and_the_models_own_come_back(make_model: Any) -> None:
    model = make_model("llama")
    own = model.generation_config
    own.top_k = 3
    with pytest.raises(KeyboardInterrupt), generation_settings(model, max_new_tokens=4, eos_token_id=[7]):
        assert (model.generation_config.top_k, model.generation_config.eos_token_id) != (3, 2)
        raise KeyboardInterrupt
    assert model.generation_config is own and own.top_k == 3


def test_every_declared_end_ends(make_model: Any, tokenizer: Any) -> None:
    model = make_model("llama")
    assert end_ids(model, tokenizer) == {2}
    model.generation_config.eos_token_id = [5, 6]
    model.config.eos_token_id = None
    assert end_ids(model, tokenizer) == {2, 5, 6}


def test_padding(tokenizer: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    assert pad_id(changed) == 0
    changed.pad_token = None
    assert pad_id(changed) == 2
    changed.eos_token = None
    assert pad_id(changed) == 0
