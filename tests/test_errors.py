"""What says that memory ran out, in whichever library's words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder.errors import OutOfMemory, is_out_of_memory, memory_told

TOO_MANY = 2**50


@pytest.mark.parametrize(
    "ask", [torch.empty, np.empty, lambda size: bytearray(8 * size)], ids=["torch", "numpy", "bytes"]
)
def test_a_real_refusal_is_told(ask) -> None:
    with pytest.raises(OutOfMemory, match=r"out of memory: .*data\.max_length"), memory_told():
        ask(TOO_MANY)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError(28, "no space")])
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, memory_told():
        raise error
    assert caught.value is error
