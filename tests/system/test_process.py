"""What a process gives back before the next manifest begins."""

from __future__ import annotations

import pytest
import torch

from ladder.system.process import process_memory, reset_peak


@pytest.mark.parametrize("used", [False, True])
def test_what_torch_has_reserved_of_a_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch, used: bool) -> None:
    """A process that never used the GPU does not begin to, for that alone would take hundreds of MiB."""
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    reset_peak()
    assert len(emptied) == used and process_memory().peak_bytes > 0
