"""The head contract: what a head gives for hidden states is what the model gives, or the head is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ladder.errors import ModelError
from ladder.models import head as module
from ladder.models.head import TOLERANCE, find_head, hidden_states, prove_head, trusted_head


def test_heads_of_many_families_are_proved(make_model: Any, family: str) -> None:
    model = make_model(family)
    head = trusted_head(model)
    ids = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
    ones, positions = torch.ones_like(ids), torch.arange(7).expand(3, 7)
    with torch.no_grad():
        ours = head.logits(hidden_states(model, ids, ones, positions))
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
    head = trusted_head(model)
    assert head.projection.weight is model.get_input_embeddings().weight
    head.logits(torch.ones(1, 16)).sum().backward()
    assert head.projection.weight.grad is not None


@pytest.mark.parametrize(("family", "change"), [("llama", {"scale": 1.001}), ("gemma2", {"cap": None}), ("cohere", {})])
def test_a_wrong_head_is_refused(make_model: Any, family: str, change: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(family)
    wrong = replace(find_head(model), **change or {"scale": 1.0})
    assert prove_head(model, wrong) > TOLERANCE
    monkeypatch.setattr(module, "find_head", lambda model: wrong)
    with pytest.raises(ModelError, match="differs from the model's logits by") as caught:
        trusted_head(model)
    assert "runtime.wire to logits" in str(caught.value.remedy)


def test_a_scale_that_the_config_does_not_name_is_refused(make_model: Any) -> None:
    model = make_model("granite")
    model.config.logits_scaling = 5.0
    model.config.get_text_config().logits_scaling = 5.0
    with pytest.raises(ModelError, match="differs"):
        trusted_head(_Scaled(model))


class _Scaled(nn.Module):
    """A model whose logits are not what its config says."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config = model, model.config

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def get_decoder(self) -> Any:
        return self.inner.get_decoder()

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = output.logits * 1.25
        return output


def test_undefined_logits_are_refused(make_model: Any) -> None:
    model = make_model("llama")
    model.get_output_embeddings().weight.data[5] = float("nan")
    with pytest.raises(ModelError, match="differs from the model's logits by nan"):
        trusted_head(model)


def test_a_model_without_a_linear_head_is_refused(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(ModelError, match="no linear output head"):
        find_head(model)
