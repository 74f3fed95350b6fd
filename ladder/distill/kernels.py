"""The tile's functions, compiled or not, one pair for each objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from ladder.distill.compiled import compiled
from ladder.distill.objective import Objective
from ladder.distill.tile import Figures, Terms, figures, student_gradient


@dataclass(frozen=True)
class Kernels:
    """What a tile goes through."""

    figures: Callable[[Sequence[Tensor], Tensor], tuple[list[Figures], Tensor]]
    """:func:`ladder.distill.tile.figures` at the objective's temperature."""
    gradient: Callable[..., Terms]
    """:func:`ladder.distill.tile.student_gradient` for the objective, with its other arguments."""


@cache
def kernels_of(objective: Objective, compile: bool) -> Kernels:
    """The kernels of an objective; compiled ones are kept for the life of the process."""

    def figures_kernel(logits: Sequence[Tensor], labels_n: Tensor) -> tuple[list[Figures], Tensor]:
        return figures(logits, labels_n, objective.temperature)

    def gradient_kernel(*given: Any) -> Terms:
        return student_gradient(objective, *given)

    if not compile:
        return Kernels(figures_kernel, gradient_kernel)
    return Kernels(compiled(figures_kernel), compiled(gradient_kernel))
