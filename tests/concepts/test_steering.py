"""Steering: what is added or taken out, alike for prompt and new tokens, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ladder.concepts.layers import decoder_layers, residuals
from ladder.concepts.steering import (
    Push,
    Steering,
    ablated,
    added,
    asked_pushes,
    dosed_steering,
    middle_layers,
    steered,
)
from ladder.concepts.vectors import Facts, Vectors
from ladder.errors import LadderError, ModelError, UsageError
from ladder.models import continue_rows

WIDTH, LAYERS = 16, 4


def vectors_of(width: int = WIDTH, **facts: Any) -> Vectors:
    generator = torch.Generator().manual_seed(0)
    by_layer = {
        layer: torch.nn.functional.normalize(torch.randn(2, width, generator=generator)) for layer in range(LAYERS)
    }
    return Vectors(("calm", "bored"), by_layer, Facts("m", "c", **facts))


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **shape)).eval()
    for parameter in made.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return made


def test_what_a_change_is_against_float64() -> None:
    torch.manual_seed(1)
    hidden_BTD, vector_D = torch.randn(2, 3, 8), torch.nn.functional.normalize(torch.randn(8), dim=0)
    exact_BTD, unit_D = hidden_BTD.double(), vector_D.double() / vector_D.double().norm()
    assert torch.allclose(added(vector_D, -1.7)(hidden_BTD).double(), exact_BTD - 1.7 * vector_D.double(), atol=1e-6)
    without_BTD = exact_BTD - torch.einsum("btd,d,e->bte", exact_BTD, unit_D, unit_D)
    assert torch.allclose(ablated(3 * vector_D)(hidden_BTD).double(), without_BTD, atol=1e-6)
    narrow_BTD = ablated(vector_D)(hidden_BTD.bfloat16())
    assert narrow_BTD.dtype == torch.bfloat16 and torch.allclose(narrow_BTD.double(), without_BTD, atol=0.03)
    assert added(vector_D, 2.0)(hidden_BTD.half()).dtype == torch.float16


@torch.no_grad()
def test_prompts_new_tokens_and_padded_rows_are_steered_alike(model: PreTrainedModel) -> None:
    rows, settings = [[3, 4, 5, 6, 7], [8, 9]], {"pad": 0, "ends": (), "max_new_tokens": 6, "do_sample": False}
    plain = continue_rows(model, rows, **settings)
    with steered(model, vectors_of(), [Push("calm", 9.0), Push("bored", None)], [1, 2]):
        together = continue_rows(model, rows, **settings)
        uncached = continue_rows(model, rows, **settings, use_cache=False)
        alone = [continue_rows(model, [ids], **settings)[0] for ids in rows]
    assert together == uncached == alone != plain
    assert continue_rows(model, rows, **settings) == plain


@torch.no_grad()
def test_the_first_columns_are_left_as_they_are(model: PreTrainedModel) -> None:
    ids_BT, parts = torch.arange(3, 11).reshape(1, 8), []
    with steered(model, vectors_of(), [Push("calm", 9.0)], [1], after=5), residuals(model, [1]) as left:
        model(ids_BT)
        whole_BTD, cache = left[1], None
        for chunk_BT in ids_BT.split([4, 3, 1], 1):  # As it is read with a cache.
            cache = model(chunk_BT, past_key_values=cache, use_cache=True).past_key_values
            parts.append(left[1])
    with residuals(model, [1]) as left:
        model(ids_BT)
    assert torch.equal(whole_BTD[:, :5], left[1][:, :5])
    assert torch.allclose(whole_BTD[:, 5:], left[1][:, 5:] + 9.0 * vectors_of().of("calm")[1], atol=1e-5)
    assert torch.allclose(torch.cat(parts, 1), whole_BTD, atol=1e-4)


def test_nothing_stays_after_an_error(model: PreTrainedModel) -> None:
    hooks = [len(layer._forward_hooks) for layer in decoder_layers(model)]
    with pytest.raises(RuntimeError), steered(model, vectors_of(), [Push("calm", 1.0)], [1]):
        raise RuntimeError
    decoder_layers(model)[1].mlp.down_proj.weight.data.fill_(float("nan"))
    broken = pytest.raises(ModelError, match=r"what leaves layer 1 while it is steered is not finite")
    with broken, steered(model, vectors_of(), [Push("calm", 1.0)], [1]):
        model(torch.tensor([[3, 4]]))
    assert [len(layer._forward_hooks) for layer in decoder_layers(model)] == hooks
    assert not model.get_decoder()._forward_pre_hooks


@pytest.mark.parametrize(
    ("vectors", "push", "layers", "match"),
    [
        (vectors_of(8), Push("calm", 1.0), [1], "vectors of width 8, and this model's hidden states have 16"),
        (vectors_of(), Push("joy", 1.0), [1], "no concept 'joy'"),
        (vectors_of(), Push("calm", 1.0), [LAYERS], r"layers \[4\], expected different numbers from 0 to 3"),
        (vectors_of(), Push("calm", float("nan")), [1], "calm by nan"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: PreTrainedModel, vectors: Vectors, push: Push, layers: list[int], match: str
) -> None:
    with pytest.raises(LadderError, match=match), steered(model, vectors, [push], layers):
        pass


def test_layers_without_vectors_are_refused(model: PreTrainedModel) -> None:
    whole = vectors_of()
    few = Vectors(whole.concepts, {1: whole.by_layer[1]}, whole.facts)
    with (
        pytest.raises(UsageError, match=r"no vectors for layer 2.*one of 1"),
        steered(model, few, [Push("calm", 1)], [2]),
    ):
        pass


def test_the_middle_of_the_depth() -> None:
    assert middle_layers(range(30), 30) == (13, 14, 15)
    assert middle_layers(range(4), 4) == (1,)
    assert middle_layers([0, 9, 3], 30) == (9,)  # None lies inside, so the nearest.


def test_an_amount_is_a_multiple_of_the_dose_where_one_was_measured_there(tmp_path: Path) -> None:
    vectors_of(doses={"calm": 4.0}, dosed={"calm": [1]}).save(tmp_path / "v")
    asked = asked_pushes(["calm=0.5", "bored=-2", "a=b=ablate"])
    assert asked == {"calm": 0.5, "bored": -2.0, "a=b": None}
    steering, notes = dosed_steering(tmp_path / "v", {"calm": 0.5, "bored": -2.0}, LAYERS)
    assert steering.layers == (1,) and steering.pushes == (Push("calm", 2.0), Push("bored", -2.0))
    assert len(notes) == 1 and "bored has no dose behind layers [1]" in notes[0]
    elsewhere, notes = dosed_steering(tmp_path / "v", {"calm": 0.5}, LAYERS, [2])
    assert elsewhere.pushes == (Push("calm", 0.5),) and len(notes) == 1
    for wrong in (["calm"], ["calm=x"], ["calm=1", "calm=2"], ["=1"], ["calm=inf"]):
        with pytest.raises(UsageError, match="expected CONCEPT=AMOUNT"):
            asked_pushes(wrong)


def test_the_digest_holds_all_that_changes_what_is_said(tmp_path: Path) -> None:
    vectors_of().save(tmp_path / "v")
    whole = vectors_of()
    turned = Vectors(whole.concepts, {**whole.by_layer, 1: whole.by_layer[1].roll(1, 1)}, whole.facts)
    turned.save(tmp_path / "w")
    told = Steering(tmp_path / "v", (Push("calm", 1.0),), (1,)).digest()
    others = [
        Steering(tmp_path / "v", (Push("calm", 1.1),), (1,)),
        Steering(tmp_path / "v", (Push("bored", 1.0),), (1,)),
        Steering(tmp_path / "v", (Push("calm", 1.0),), (2,)),
        Steering(tmp_path / "w", (Push("calm", 1.0),), (1,)),
    ]
    assert len({told, *(other.digest() for other in others)}) == 5
    vectors_of(doses={"calm": 3.0}).save(tmp_path / "x")  # A dose that is stored changes nothing by itself.
    assert Steering(tmp_path / "x", (Push("calm", 1.0),), (1,)).digest() == told
