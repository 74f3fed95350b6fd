"""The learning rate rises over the warm-up and falls to zero."""

from __future__ import annotations

import math

import pytest

from ladder.train.optimizer import lr_factor


def curve(kind: str, steps: int = 20, warmup: float = 0.2) -> list[float]:
    return [lr_factor(step, steps, warmup, kind) for step in range(steps)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_rise_is_a_line_to_one(kind: str) -> None:
    assert curve(kind)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_fall() -> None:
    rest = range(16)
    assert curve("cosine")[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 16)) for n in rest])
    assert curve("linear")[4:] == pytest.approx([1 - n / 16 for n in rest])
    assert curve("constant")[4:] == [1.0] * 16


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_every_step_learns_and_none_more_than_the_peak(kind: str, warmup: float, steps: int) -> None:
    values = curve(kind, steps, warmup)
    rise = round(steps * warmup)
    assert all(0 < value <= 1 for value in values)
    assert values[:rise] == sorted(values[:rise]) and values[rise:] == sorted(values[rise:], reverse=True)
