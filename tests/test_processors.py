"""The numeric rooms on the instruction sets that torch chooses among, with one thread and with two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
ROOMS = ("distill", "signals", "methods", "train", "models", "gates")
SETS = ("default", "avx2", "avx512")
"""The words of ATEN_CPU_CAPABILITY on x86, the narrowest first."""


def available() -> tuple[str, ...]:
    """What this processor has: a set includes all that are narrower."""
    widest = torch.backends.cpu.get_cpu_capability().lower()
    return SETS[: SETS.index(widest) + 1] if widest in SETS else ()


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("instructions", SETS)
def test_the_numeric_rooms_hold(instructions: str, threads: int) -> None:
    if instructions not in available():
        pytest.skip(f"this processor has {torch.backends.cpu.get_cpu_capability()}")
    # What this process compiled is for its own instruction set.
    inherited = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment = inherited | {"ATEN_CPU_CAPABILITY": instructions, "LADDER_TEST_THREADS": str(threads)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not long", *(f"tests/{room}" for room in ROOMS)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:]
