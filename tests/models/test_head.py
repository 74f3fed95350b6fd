"""The head of a model is found as its config describes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ladder.errors import ModelError
from ladder.models.head import Head, find_head, hidden_states


def test_the_head_gives_the_logits_of_many_families(make_model: Any, family: str) -> None:
    model = make_model(family)
    head = find_head(model)
    ids = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
    ones, positions = torch.ones_like(ids), torch.arange(7).expand(3, 7)
    with torch.no_grad():
        ours = head.logits(hidden_states(model, ids, ones, positions).flatten(0, 1)).unflatten(0, (3, 7))
        theirs = model(input_ids=ids, attention_mask=ones, position_ids=positions).logits
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
    assert head.shape == (64, 16)


def test_what_the_config_says_about_the_logits_is_used(make_model: Any) -> None:
    found = {family: find_head(make_model(family)) for family in ("llama", "cohere", "granite", "gemma2", "phi")}
    assert {family: head.scale for family, head in found.items() if head.scale != 1} == {"cohere": 0.3, "granite": 0.25}
    assert {family: head.cap for family, head in found.items() if head.cap is not None} == {"gemma2": 0.5}
    assert found["phi"].projection.bias is not None and found["llama"].projection.bias is None


def test_gradient_flows_into_a_tied_head(make_model: Any) -> None:
    model = make_model("llama", tie_word_embeddings=True)
    student = find_head(model).student(torch.ones(1, 16))
    assert student.blocks[0].weight_VD is model.get_input_embeddings().weight
    assert student.blocks[0].weight_VD.requires_grad


@pytest.mark.parametrize("layer", [None, nn.Embedding(64, 16)])
def test_a_model_without_a_linear_head_is_refused(make_model: Any, monkeypatch: pytest.MonkeyPatch, layer: Any) -> None:
    model = make_model("llama")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: layer)
    with pytest.raises(ModelError, match=r"no linear output head|is not linear"):
        find_head(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_computed_in_float32_at_least(dtype: torch.dtype) -> None:
    """Where the model would round its logits, the head does not."""
    head = Head(nn.Linear(2, 1, bias=False).to(dtype))
    head.projection.weight.data[:] = torch.tensor([1.0, 2**-10])
    found = head.logits(torch.ones(1, 2, dtype=dtype))
    assert found.item() == 1 + 2**-10 and not found.requires_grad
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
