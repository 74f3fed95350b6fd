"""Packing changes nothing that a token sees: hidden states, logits and gradients are those of the row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Example
from ladder.errors import ModelError
from ladder.models.head import find_head
from ladder.teachers.forward import trained_hidden_states, trained_logits

LENGTHS = (5, 9, 3, 7, 2, 12)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    ids = [tuple(torch.randint(3, 64, (n,), generator=generator).tolist()) for n in LENGTHS]
    return [Example(row, tuple(t % 3 != 0 for t in range(1, len(row))), gold=True) for row in ids]


def batch(examples: list[Example], packing: bool, width: int = 16) -> Batch:
    return collate(examples, [0] * len(examples), Collation(0, width, packing))


def by_example(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    return values[torch.from_numpy(np.lexsort((batch.rows_N, batch.example_N)))]


@torch.no_grad()
def alone(model: Any, examples: list[Example]) -> torch.Tensor:
    """Each row by itself through the model's own forward, without masks or positions."""
    rows = [model(torch.tensor([example.ids])).logits[0, :-1][list(example.trained)] for example in examples]
    return torch.cat(rows)


@pytest.mark.parametrize("packing", [False, True])
def test_a_token_sees_its_own_row_only(make_model: Any, family: str, examples: list[Example], packing: bool) -> None:
    model, made = make_model(family), batch(examples, packing)
    assert made.packed == packing
    with torch.no_grad():
        logits = by_example(made, trained_logits(model, made))
        hidden = trained_hidden_states(model, made)
        through_head = by_example(made, find_head(model).logits(hidden))
    expected = alone(model, examples)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (through_head - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention_keeps_packed_rows_apart(make_model: Any, examples: list[Example], attention: str) -> None:
    model = make_model("llama", attn_implementation=attention)
    padded, packed = (batch(examples, packing) for packing in (False, True))
    with torch.no_grad():
        one, other = (by_example(made, trained_hidden_states(model, made)) for made in (padded, packed))
    assert (one - other).abs().max() < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_packed_row_has_the_hidden_states_that_it_has_alone(
    make_model: Any, examples: list[Example], attention: str
) -> None:
    model, packed = make_model("llama", attn_implementation=attention), batch(examples, True, 30)
    assert packed.segment_BT.max() >= 3
    with torch.no_grad():
        found = by_example(packed, trained_hidden_states(model, packed))
        rows = [model.model(torch.tensor([one.ids])).last_hidden_state[0, :-1][list(one.trained)] for one in examples]
    assert (found - torch.cat(rows)).abs().max() <= 1e-5


def gradient(model: Any, made: Batch, number: int, labels: torch.Tensor) -> torch.Tensor:
    """Of the summed cross-entropy of one example of a batch."""
    logits = by_example(made, trained_logits(model, made))
    own = torch.from_numpy(np.sort(made.example_N) == number)
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits[own], labels, reduction="sum").backward()
    return torch.cat([value.grad.flatten() for value in model.parameters()])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("number", range(len(LENGTHS) - 2))
def test_a_row_packed_among_others_has_the_gradient_that_it_has_alone(
    make_model: Any, examples: list[Example], attention: str, number: int
) -> None:
    model, one = make_model("llama", attn_implementation=attention), examples[number]
    labels = torch.tensor([token for token, trained in zip(one.ids[1:], one.trained, strict=True) if trained])
    among = gradient(model, batch(examples, True, 30), number, labels)
    lone = gradient(model, batch([one], False), 0, labels)
    assert lone.norm() > 0.01 and (among - lone).norm() <= 1e-6 * lone.norm()


def test_packing_keeps_the_gradient(make_model: Any, examples: list[Example]) -> None:
    gradients = []
    for packing in (False, True):
        model, made = make_model("llama"), batch(examples, packing)
        logits = trained_logits(model, made)
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(made.labels_N)).backward()
        gradients.append(torch.cat([value.grad.flatten() for value in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()


def test_bfloat16_takes_a_packed_batch(make_model: Any, examples: list[Example]) -> None:
    model = make_model("llama").bfloat16()
    with torch.no_grad():
        hidden = trained_hidden_states(model, batch(examples, True))
    assert hidden.dtype == torch.bfloat16 and hidden.isfinite().all()


def test_a_packed_sequence_longer_than_a_sliding_window_is_refused(make_model: Any, examples: list[Example]) -> None:
    model, packed = make_model("mistral", sliding_window=8), batch(examples, True)
    with pytest.raises(ModelError, match=r"packed sequence of 16 tokens .* window of 8") as caught:
        trained_hidden_states(model, packed)
    assert "data.packing: false" in str(caught.value.remedy)
    wide = make_model("mistral", sliding_window=16)
    expected = alone(wide, examples)
    with torch.no_grad():
        found = by_example(packed, trained_logits(wide, packed))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    padded = batch(examples, False)
    with torch.no_grad():
        found = by_example(padded, trained_logits(model, padded))
    expected = alone(model, examples)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_empty_batch_gives_no_rows(make_model: Any) -> None:
    made = collate([Example((5, 6, 7), (False, False), gold=True)], [0], Collation(0, 16))
    assert trained_hidden_states(make_model("llama"), made).shape == (0, 16)
