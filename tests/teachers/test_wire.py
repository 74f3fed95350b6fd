"""What goes on the wire comes off it bit by bit, without a copy."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ladder.errors import ModelError
from ladder.teachers.wire import Signal, Truncation, capture, decode, decode_topk, encode, encode_topk

CPU = torch.device("cpu")
TRUNCATION = Truncation(k=3, temperature=2.0, vocabulary=9)


def odd_numbers(dtype: torch.dtype) -> torch.Tensor:
    """[4, 6] with negative zero, infinities, undefined values and the smallest numbers among them."""
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, -1e-3])
    return torch.cat([special, torch.randn(16, generator=torch.Generator().manual_seed(0))]).reshape(4, 6).to(dtype)


def dense(rows: int = 2, places: list[int] | None = None) -> Signal:
    return Signal("hidden", "float32", encode(torch.ones(rows, 2)), np.array(places or range(rows)))


def truncated() -> Signal:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    rows = encode_topk(capture(logits, torch.tensor([1, 2, 3, 4]), TRUNCATION))
    return Signal("topk", "float32", rows, np.arange(4), TRUNCATION)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_round_trip_is_bitwise(dtype: torch.dtype) -> None:
    values, name = odd_numbers(dtype), str(dtype).removeprefix("torch.")
    signal = pickle.loads(pickle.dumps(Signal("hidden", name, encode(values), np.arange(4))))
    signal.check(4)
    found = decode(signal.values, signal.dtype, CPU)
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), values.view(torch.uint8))


def test_a_truncated_round_trip_is_bitwise() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    top = capture(logits, torch.tensor([1, 2, 3, 4]), TRUNCATION)
    signal = pickle.loads(pickle.dumps(truncated()))
    signal.check(4)
    found = decode_topk(signal, CPU)
    assert all(torch.equal(getattr(found, name), value) for name, value in vars(top).items())
    assert signal.truncation == TRUNCATION


def test_bytes_are_those_of_everything_that_crosses() -> None:
    signal = Signal("hidden", "bfloat16", encode(torch.ones(3, 5, dtype=torch.bfloat16)), np.arange(3))
    assert signal.values.dtype == np.uint16 and signal.nbytes == 3 * 5 * 2 + 3 * 8
    assert truncated().nbytes == 4 * (3 * (4 + 4) + 4 * 4) + 4 * 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_that_cannot_be_written_is_read_in_place_and_without_a_warning(dtype: str) -> None:
    """An object store hands out read-only arrays. torch warns once in a process, unless it is told to warn always."""
    array = encode(torch.ones(2, 3, dtype=getattr(torch, dtype)))["values"].copy()
    array.setflags(write=False)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = decode(array, dtype, CPU)
    finally:
        torch.set_warn_always(False)
    assert caught == []
    assert found.data_ptr() == array.__array_interface__["data"][0]
    assert found.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_layout_and_gradient_stay_behind() -> None:
    values = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    assert torch.equal(decode(encode(values)["values"], "float32", CPU), values.detach())


@pytest.mark.parametrize(
    ("rows", "places", "tokens"),
    [
        (2, [0, 1, 2], 4),
        (3, [0, 1], 4),
        (2, [0, 4], 4),
        (1, [0], 0),
        (0, [0], 4),
        (2, [-1, 0], 4),
        (2, [1, 1], 4),
        (2, [2, 1], 4),
    ],
)
def test_a_signal_about_other_tokens_is_refused(rows: int, places: list[int], tokens: int) -> None:
    with pytest.raises(ModelError, match=f"a signal of {rows} rows does not fit a batch of {tokens} trained tokens"):
        dense(rows, places).check(tokens)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda signal: replace(signal, rows={name: signal.rows[name] for name in ("values", "ids")}),
        lambda signal: replace(signal, rows={**signal.rows, "other": signal.values}),
        lambda signal: replace(signal, truncation=None),
        lambda signal: replace(signal, kind="logits"),
        lambda signal: replace(signal, dtype="bfloat16"),
        lambda signal: replace(signal, rows={**signal.rows, "tail": signal.rows["tail"][:1]}),
        lambda signal: replace(dense(), truncation=TRUNCATION),
        lambda signal: replace(dense(), kind="topk"),
    ],
)
def test_a_malformed_signal_is_refused(spoil: Callable[[Signal], Signal]) -> None:
    with pytest.raises(ModelError, match="signal"):
        spoil(truncated()).check(4)
