"""A temperature for each token, from how much is in doubt about its likeliest tokens: T = clip(T0 (1 + lam m)^gamma,
low, high), where m is the mean variance of the largest logits.

Of several teachers, m is what they differ by. Of a student with variances of its hidden state, it is what those make of
its logits; then its own temperature has a gradient, through which the variances learn from labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ladder.errors import LadderError

FLOOR = -20.0
"""Least log-probability that a teacher is heard with: one that is 0 would make every variance infinite."""
TOP = 40
"""Largest logits that m is the mean over; all of them where there are fewer."""


@dataclass(frozen=True)
class VarianceTemperature:
    """T0, lam, gamma and the bounds.

    Args:
        head_scale: of the gradient that the student's variances get.

    Raises:
        LadderError: bounds that are not 0 < low <= high, T0 not above 0, or another figure below 0.
    """

    base: float = 1.0
    slope: float = 1.0
    exponent: float = 1.0
    low: float = 0.7
    high: float = 1.8
    head_scale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise LadderError(
                f"found bounds {self.low:g} and {self.high:g}, expected 0 < low <= high",
                where="training_params.variance",
                remedy="write a low that is above 0 and not above high",
            )
        if not (self.base > 0 and min(self.slope, self.exponent, self.head_scale) >= 0):
            raise LadderError(
                f"found {self}, expected a base above 0 and nothing below 0", where="training_params.variance"
            )

    def of(self, variance_n: Tensor) -> Tensor:
        """T of each token, [n], from m >= 0."""
        return self._free(variance_n).clamp(self.low, self.high)

    def derivative(self, variance_n: Tensor) -> Tensor:
        """dT/dm, [n]: T0 gamma lam (1 + lam m)^(gamma - 1), and 0 at a bound."""
        free_n = self._free(variance_n)
        grown_n = self.base * self.exponent * self.slope * (1 + self.slope * variance_n) ** (self.exponent - 1)
        return grown_n.where((free_n > self.low) & (free_n < self.high), 0.0)

    def _free(self, variance_n: Tensor) -> Tensor:
        free_n: Tensor = self.base * (1 + self.slope * variance_n) ** self.exponent
        return free_n


def teachers_variance(
    logits: Sequence[Tensor], log_totals: Sequence[Tensor], shares: Sequence[Tensor], size: int
) -> Tensor:
    """m of each token, [n]: over the ``TOP`` largest logits of the teachers' weighted mean, the mean of their weighted
    variance. Logits are taken as log-probabilities, so that a constant in a teacher's logits says nothing.

    Beside the mean no tensor [n, V] is made, however many teachers there are.

    Args:
        logits: [n, V] of each teacher; removed columns hold a finite lowest number.
        log_totals: logsumexp of these, [n] each.
        shares: of each teacher in the target, [n] each, summing to 1 in a row.
        size: columns that take part.
    """
    if len(logits) == 1:
        return torch.zeros_like(log_totals[0])  # One teacher differs from nobody.
    parts = [share_n.unsqueeze(-1) for share_n in shares]
    totals = [total_n.unsqueeze(-1) for total_n in log_totals]
    mean_nV = parts[0] * (logits[0] - totals[0]).clamp_min(FLOOR)
    for part_n1, logits_nV, total_n1 in zip(parts[1:], logits[1:], totals[1:], strict=True):
        mean_nV = mean_nV + part_n1 * (logits_nV - total_n1).clamp_min(FLOOR)
    mean_nk, place_nk = mean_nV.topk(min(TOP, size), dim=-1)
    variance_nk = torch.zeros_like(mean_nk)
    for part_n1, logits_nV, total_n1 in zip(parts, logits, totals, strict=True):
        variance_nk = (
            variance_nk + part_n1 * ((logits_nV.gather(-1, place_nk) - total_n1).clamp_min(FLOOR) - mean_nk) ** 2
        )
    return variance_nk.mean(-1)


@dataclass(frozen=True, eq=False)
class Spread:
    """How sure a student is of its hidden states."""

    log_variance_ND: Tensor
    """Of each dimension; gradient reaches it."""
    weight_VD: Tensor
    """Of the output head."""


@torch.no_grad()
def head_gradient(
    student_nV: Tensor,
    labels_n: Tensor,
    weight_n: Tensor,
    log_variance_nD: Tensor,
    weight_VD: Tensor,
    scale: float,
    size: int,
    settings: VarianceTemperature,
) -> tuple[Tensor, Tensor]:
    """The student's own temperature [n], and the gradient [n, D] that its log-variances get.

    With var of logit j = sum_d exp(log_variance_d) (scale W_jd)^2, m their mean over the student's ``TOP`` largest
    logits and T of m, this is head_scale x weight x dCE(z / T, y)/dT x dT/dm x dm/dlog_variance, where dCE/dT = (z_y -
    E_p z) / T^2 and p = softmax(z / T): a label that is likelier than what is expected wants a smaller T. Which logits
    are the largest is piecewise constant, so it has no gradient.

    Args:
        student_nV: logits; removed columns hold a finite lowest number.
        labels_n: a column everywhere; it counts where ``weight_n`` is not 0.
        weight_n: of each token in the sum over tokens.
        scale: factor on the raw logits.
        size: columns that take part.
    """
    place_nk = student_nV.topk(min(TOP, size), dim=-1).indices
    square_nD = (weight_VD[place_nk].to(log_variance_nD.dtype) * scale).square().mean(1)
    by_dimension_nD = log_variance_nD.exp() * square_nD
    variance_n = by_dimension_nD.sum(-1)
    temperature_n = settings.of(variance_n)
    label_n = student_nV.gather(-1, labels_n.unsqueeze(-1)).squeeze(-1)
    p_nV = torch.softmax(student_nV / temperature_n.unsqueeze(-1), dim=-1)
    # Where p is 0 the logit may be the lowest there is.
    expected_n = (p_nV * student_nV.where(p_nV > 0, 0.0)).sum(-1)
    by_temperature_n = (label_n - expected_n) / temperature_n**2
    factor_n = settings.head_scale * weight_n * by_temperature_n * settings.derivative(variance_n)
    return temperature_n, factor_n.where(weight_n != 0, 0.0).unsqueeze(-1) * by_dimension_nD
