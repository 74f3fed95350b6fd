"""A head is trusted where it gives the model's own logits, in every dtype and for every shape of batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ladder.errors import ModelError
from ladder.models import head as module
from ladder.models.head import Difference, find_head, prove
from ladder.models.load import load_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_of_many_families_are_proved(make_model: Any, family: str, dtype: torch.dtype) -> None:
    model = make_model(family).to(dtype)
    found = prove(model)
    assert found.head == find_head(model) and found.doubt == ""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("family", "change"), [("llama", {"scale": 1.01}), ("gemma2", {"cap": None}), ("cohere", {"scale": 1.0})]
)
def test_a_wrong_head_is_doubted(
    make_model: Any, family: str, change: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(family).to(dtype)
    wrong = replace(find_head(model), **change)
    monkeypatch.setattr(module, "find_head", lambda model: wrong)
    found = prove(model)
    assert found.head is None and "differs from the model's logits by" in found.doubt
    assert found.doubt.startswith(type(model).__name__)


def test_one_wrong_column_is_enough(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large vocabulary it is nothing in the norm."""
    model = make_model("phi", vocab_size=8000)
    right = find_head(model)
    wrong = nn.Linear(16, 8000)
    wrong.load_state_dict(right.projection.state_dict())
    wrong.bias.data[7000] += 0.01 * right.logits(torch.ones(1, 16)).abs().max()
    monkeypatch.setattr(module, "find_head", lambda model: replace(right, projection=wrong))
    assert prove(model).head is None


class Bent(nn.Module):
    """A model that does something to its logits which its config does not name."""

    def __init__(self, model: Any, bend: Any) -> None:
        super().__init__()
        self.inner, self.config, self.dtype, self.bend = model, model.config, model.dtype, bend
        self.device = model.device

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def get_decoder(self) -> Any:
        return self.inner.get_decoder()

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = self.bend(output.logits, **inputs)
        return output


def late(logits: torch.Tensor, position_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """A longer text is read as if it had begun later."""
    return logits * (1 + 0.05 * (position_ids[:, :1, None] > 0))


def padded(logits: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
    return logits * (1 + 0.05 * (attention_mask == 0).any(-1)[:, None, None])


def lonely(logits: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
    return logits + 0.2 * logits.abs().max() * (attention_mask.sum(-1) == 1)[:, None, None]


def scaled(logits: torch.Tensor, **inputs: Any) -> torch.Tensor:
    return logits * 1.25


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bend", [late, padded, lonely, scaled])
def test_a_head_that_agrees_on_some_batches_only_is_doubted(make_model: Any, bend: Any, dtype: torch.dtype) -> None:
    model = make_model("granite").to(dtype)
    assert prove(Bent(model, lambda logits, **inputs: logits)).head is not None  # type: ignore[arg-type]
    assert prove(Bent(model, bend)).head is None  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_undefined_logits_are_an_error(make_model: Any, value: float) -> None:
    model = make_model("llama")
    model.get_output_embeddings().weight.data[5] = value
    with pytest.raises(ModelError, match="not finite") as caught:
        prove(model)
    assert caught.value.where == "LlamaForCausalLM"


def test_a_model_without_a_linear_head_is_doubted(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    found = prove(model)
    assert found.head is None and "no linear output head" in found.doubt


def test_a_backbone_that_is_not_one_is_doubted(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    decoder = model.get_decoder()
    for backbone in (lambda **told: decoder(told), lambda **told: object(), None):
        monkeypatch.setattr(model, "get_decoder", lambda backbone=backbone: backbone)
        found = prove(model)
        assert found.head is None and "no hidden states for its head" in found.doubt


def test_hidden_states_of_another_width_are_doubted(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    monkeypatch.setattr(module, "hidden_states", lambda *told: torch.zeros(*told[1].shape, 5))
    assert "no hidden states for its head" in prove(model).doubt


def test_rounding_is_judged_by_the_dtype() -> None:
    known = {dtype: Difference(3e-3, 3e-3).within(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert list(known.values()) == [False, False, True]
    assert Difference(1e-5, 1e-5).within(torch.float32)
    assert not Difference(1e-5, 0.01).within(torch.bfloat16) and not Difference(0.02, 1e-3).within(torch.bfloat16)
    assert not Difference(float("nan"), 0.0).within(torch.float32)
    assert not Difference(0.0, float("nan")).within(torch.float32)


def test_nothing_is_left_behind(parent: Any) -> None:
    model = load_model(parent)
    state = torch.get_rng_state()
    assert prove(model).head is not None and not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
