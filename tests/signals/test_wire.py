"""What goes on the wire comes off it bit by bit, in its places."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from ladder.errors import ModelError
from ladder.signals.wire import Kind, Signal, decode, encode

CPU = torch.device("cpu")


def odd_numbers(dtype: torch.dtype) -> torch.Tensor:
    """[4, 6] with negative zero, infinities, undefined values and the smallest numbers among them."""
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, -1e-3])
    return torch.cat([special, torch.randn(16, generator=torch.Generator().manual_seed(0))]).reshape(4, 6).to(dtype)


@pytest.mark.parametrize("kind", ["hidden", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_round_trip_is_bitwise(kind: Kind, dtype: torch.dtype) -> None:
    values = odd_numbers(dtype)
    signal = pickle.loads(pickle.dumps(encode(kind, values, np.arange(4))))
    found = decode(signal, 4, CPU)
    assert found.dtype == dtype and signal.kind == kind
    assert torch.equal(found.view(torch.uint8), values.view(torch.uint8))


def test_bfloat16_takes_two_bytes_a_number() -> None:
    signal = encode("hidden", torch.ones(3, 5, dtype=torch.bfloat16), np.arange(3))
    assert signal.values.dtype == np.uint16 and signal.nbytes == 3 * 5 * 2 + 3 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_go_to_their_places_and_the_others_are_zero(dtype: torch.dtype) -> None:
    values = torch.arange(1, 7).reshape(3, 2).to(dtype)
    found = decode(encode("hidden", values, np.array([0, 2, 5])), 6, CPU)
    assert found.dtype == dtype
    assert found.tolist() == [[1, 2], [0, 0], [3, 4], [0, 0], [0, 0], [5, 6]]


def test_no_rows_at_all() -> None:
    found = decode(encode("hidden", torch.zeros(0, 7), np.zeros(0, np.int64)), 3, CPU)
    assert found.shape == (3, 7) and not found.any()


def test_memory_that_cannot_be_written_is_read() -> None:
    """An object store hands out read-only arrays, and torch tensors are not read-only."""
    signal = encode("logits", torch.ones(2, 3), np.arange(2))
    frozen = replace(signal, values=signal.values.copy(), places=signal.places.copy())
    frozen.values.setflags(write=False)
    frozen.places.setflags(write=False)
    found = decode(frozen, 2, CPU)
    found += 1
    assert frozen.values.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_layout_and_gradient_stay_behind() -> None:
    values = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    assert torch.equal(decode(encode("hidden", values, np.arange(3)), 3, CPU), values.detach())


@pytest.mark.parametrize(
    ("rows", "places", "tokens"),
    [(2, [0, 1, 2], 4), (3, [0, 1], 4), (2, [0, 4], 4), (1, [0], 0), (0, [0], 4)],
)
def test_a_signal_about_other_tokens_is_refused(rows: int, places: list[int], tokens: int) -> None:
    signal = Signal("hidden", np.ones((rows, 2), np.float32), "float32", np.array(places))
    with pytest.raises(ModelError, match=f"a signal of {rows} rows does not fit a batch of {tokens} trained tokens"):
        decode(signal, tokens, CPU)
