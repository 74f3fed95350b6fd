"""Step time, in seconds: from a probe, or roughly from the size of the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

EFFICIENCY = 0.3
"""Share of the machine's matrix-product rate that training a small model reaches; rough."""


@dataclass(frozen=True)
class Work:
    """Seconds that one process needs for one step when it is alone.

    Args:
        reading: without a cache.
        recalling: when everything is cached; the student's is the same.
    """

    reading: float
    recalling: float

    def mean(self, read_share: float) -> float:
        """Over a run in which this share must be read."""
        return read_share * self.reading + (1 - read_share) * self.recalling


def step_seconds(student: float, teachers: Sequence[float], threads: int, cores: float, courier: float = 0.0) -> float:
    """One step of the stream, in which teachers work ahead of the student.

    The slowest process sets the pace, and so does the sum of all work where the cores do not suffice for all at once.

    Args:
        student, teachers: seconds of one step each, alone, with ``threads`` threads.
        courier: seconds of one core for making the batch.
    """
    shared = (threads * (student + sum(teachers)) + courier) / cores
    return max(student, *teachers, courier, shared) if teachers else max(student, courier, shared)


def rough_seconds(parameters: int, tokens: int, teachers: int) -> float:
    """Six operations a parameter and token for the student and two for a teacher (Kaplan et al. 2020), at the rate of
    this machine's matrix products."""
    return (6 + 2 * teachers) * parameters * tokens / (EFFICIENCY * _matmul_rate())


def _matmul_rate() -> float:
    """Floating-point operations a second of a matrix product on this machine, measured for a moment."""
    side, rounds = 512, 8
    matrix = torch.randn(side, side)
    matrix @ matrix
    began = time.perf_counter()
    for _ in range(rounds):
        matrix @ matrix
    return rounds * 2 * side**3 / (time.perf_counter() - began)
