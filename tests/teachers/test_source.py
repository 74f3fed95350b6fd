"""Sources of all kinds: the rows asked for, in the width asked for, out of memory that stays as it came."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ladder.distill.tokens import Source
from ladder.errors import ModelError
from ladder.models.head import Head
from ladder.teachers.source import HiddenSource, LogitsSource, SignalSource, TeacherHead, TopKSource
from ladder.teachers.wire import Signal, Truncation, capture, encode

D, V = 5, 7
PLACES = np.array([0, 2, 5])


def head(bias: bool = False, scale: float = 1.0, cap: float | None = None, dtype: torch.dtype = torch.float32) -> Head:
    torch.manual_seed(0)
    return Head(nn.Linear(D, V, bias=bias).to(dtype).requires_grad_(False), scale, cap)


def hidden(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, D, generator=torch.Generator().manual_seed(1)).to(dtype)


def sources() -> list[SignalSource]:
    logits, truncation = head().logits(hidden()), Truncation(V, 2.0, V)
    top = capture(logits, torch.tensor([1, 2, 3]), truncation)
    return [
        HiddenSource(hidden(), head(), PLACES, 6),
        LogitsSource(logits, PLACES, 6),
        TopKSource(top, truncation, PLACES, 6),
    ]


@pytest.mark.parametrize("source", sources(), ids=lambda source: type(source).__name__)
def test_a_source_gives_the_rows_that_are_asked_for(source: Source) -> None:
    assert source.speaks_N.tolist() == [True, False, True, False, False, True]
    assert source.head_size == V and source.device.type == "cpu"
    out = torch.empty(4, V)
    found = source.logits(torch.tensor([5, 0, 5, 2]), out)
    assert found is out
    assert (found - head().logits(hidden())[[2, 0, 2, 1]]).abs().max() < 1e-6
    assert (source.known(torch.tensor([0])) is None) == (not isinstance(source, TopKSource))


@pytest.mark.parametrize("source", sources(), ids=lambda source: type(source).__name__)
def test_a_token_that_was_not_heard_has_no_logits(source: SignalSource) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        source.logits(torch.tensor([1]), torch.empty(1, V))
    assert not source.logits_NV[~source.speaks_N].any() and source.logits_NV.shape == (6, V)


@pytest.mark.parametrize("source", sources()[:2], ids=lambda source: type(source).__name__)
def test_padding_columns_can_be_left_out(source: Source) -> None:
    found = source.logits(torch.tensor([2]), torch.empty(1, V - 3))
    assert (found - head().logits(hidden())[[1], : V - 3]).abs().max() < 1e-6


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("columns", [V, V - 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bias_scale_and_cap_are_those_of_the_head(dtype: torch.dtype, columns: int, wide: bool) -> None:
    own = head(bias=True, scale=3.0, cap=2.0, dtype=dtype)
    out = torch.empty(3, columns, dtype=torch.float32 if wide else dtype)
    found = HiddenSource(hidden(dtype), own, PLACES, 6).logits(torch.from_numpy(PLACES), out)
    expected = 2 * torch.tanh(3 * own.projection(hidden(dtype))[:, :columns].float() / 2)
    assert (found.float() - expected).abs().max() <= 8 * torch.finfo(dtype).eps * expected.abs().max()


def test_nothing_is_copied_where_memory_is_shared() -> None:
    rows = encode(hidden())
    rows["values"].setflags(write=False)
    source = TeacherHead(head(), torch.device("cpu")).source(Signal("hidden", "float32", rows, PLACES), 6)
    assert isinstance(source, HiddenSource)
    assert source.hidden_MD.data_ptr() == rows["values"].__array_interface__["data"][0]
    before = rows["values"].copy()
    assert source.logits_NV.isfinite().all() and (rows["values"] == before).all()


def test_hidden_states_without_a_head_are_refused() -> None:
    signal = Signal("hidden", "float32", encode(hidden()), PLACES)
    with pytest.raises(ModelError, match="no head was loaded"):
        TeacherHead(None, torch.device("cpu")).source(signal, 6)
    with pytest.raises(ModelError, match="does not fit a batch of 5"):
        TeacherHead(head(), torch.device("cpu")).source(signal, 5)


def test_a_teacher_that_heard_nothing() -> None:
    source = HiddenSource(torch.zeros(0, D), head(bias=True), np.zeros(0, np.int64), 3)
    assert source.logits_NV.shape == (3, V) and not source.logits_NV.any() and not source.speaks_N.any()
