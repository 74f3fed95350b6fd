"""The tile's functions, compiled or not, one pair for each objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from torch import Tensor

from ladder.distill.compiled import compiled
from ladder.distill.objective import Objective
from ladder.distill.tile import Figures, Terms, Weights, figures, student_gradient


class FiguresKernel(Protocol):
    """:func:`ladder.distill.tile.figures` at the objective's temperature."""

    def __call__(self, logits: Sequence[Tensor], labels_n: Tensor) -> tuple[list[Figures], Tensor]: ...


class GradientKernel(Protocol):
    """:func:`ladder.distill.tile.student_gradient` for the objective."""

    def __call__(
        self,
        student_nV: Tensor,
        teachers: Sequence[tuple[Tensor, Figures]],
        shares: Sequence[Tensor],
        labels_n: Tensor,
        weights: Weights,
        out_nV: Tensor,
        scale: float,
        cap: float | None,
    ) -> Terms: ...


@dataclass(frozen=True)
class Kernels:
    """What a tile goes through."""

    figures: FiguresKernel
    gradient: GradientKernel


@cache
def kernels_of(objective: Objective, compile: bool) -> Kernels:
    """The kernels of an objective; compiled ones are kept for the life of the process."""

    def figures_kernel(logits: Sequence[Tensor], labels_n: Tensor) -> tuple[list[Figures], Tensor]:
        return figures(logits, labels_n, objective.temperature)

    def gradient_kernel(
        student_nV: Tensor,
        teachers: Sequence[tuple[Tensor, Figures]],
        shares: Sequence[Tensor],
        labels_n: Tensor,
        weights: Weights,
        out_nV: Tensor,
        scale: float,
        cap: float | None,
    ) -> Terms:
        return student_gradient(student_nV, teachers, shares, labels_n, weights, out_nV, objective, scale, cap)

    if not compile:
        return Kernels(figures_kernel, gradient_kernel)
    return Kernels(compiled(figures_kernel), compiled(gradient_kernel))
