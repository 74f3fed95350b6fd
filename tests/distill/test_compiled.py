"""Where compiled code is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ladder.distill.kernels import compiled

CACHE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2"])
def test_each_instruction_set_has_a_cache_of_its_own(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under AVX2, code that was kept for AVX-512 gave losses that were off by half; the other way round it crashed."""
    monkeypatch.setenv(CACHE, "")  # So that it is put back as it was.
    monkeypatch.delenv(CACHE)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    compiled(lambda x: x)
    assert os.environ[CACHE].endswith(f"_{instructions.lower()}")


def test_a_cache_that_a_person_has_named_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    compiled(lambda x: x)
    assert os.environ[CACHE] == str(tmp_path)
