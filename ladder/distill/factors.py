"""How much each term counts for each token: from routes, labels and the objective to the factors of a tile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder.distill.objective import Objective, TokenLosses, agreement, examined, taught
from ladder.distill.routing import Route, Routing
from ladder.distill.tile import Terms, Weights


@dataclass(frozen=True, eq=False)
class Factors:
    """Of n tokens, [n] each, 0 where a term does not count."""

    ce: Tensor
    """1 where cross-entropy counts."""
    gold: Tensor
    """g on the gold route."""
    taught: Tensor
    """g where a teacher teaches."""
    agreement: Tensor
    """1 - JS / ln 2 on BLENDED."""
    objective: Objective

    @classmethod
    def of(
        cls, routing: Routing, labels_n: Tensor, dream_n: Tensor, objective: Objective, dtype: torch.dtype
    ) -> Factors:
        """Factors of these tokens."""
        gain_n, gold_n = routing.gain_N.to(dtype), routing.on(Route.GOLD)
        return cls(
            examined(labels_n, routing, objective, dream_n).to(dtype),
            gain_n.where(gold_n, 0.0),
            gain_n.where(taught(routing), 0.0),
            agreement(routing, dtype),
            objective,
        )

    def weights(self, weight_n: Tensor) -> Weights:
        """Factors of the gradient, with the reduction weight [n]."""
        alpha, beta, gamma = self.objective.alpha, self.objective.beta, self.objective.gamma
        return Weights(
            ce=(alpha * self.ce + beta * self.gold) * weight_n,
            kd=beta * self.taught * weight_n,
            regularizer=gamma * self.agreement * weight_n,
        )

    def losses(self, terms: Terms) -> TokenLosses:
        """The terms where they count, and L = alpha CE + beta g KD + gamma R."""
        alpha, beta, gamma = self.objective.alpha, self.objective.beta, self.objective.gamma
        ce_n = terms.surprisal.where(self.ce != 0, 0.0)
        kd_n = terms.surprisal.where(self.gold != 0, terms.kd.where(self.taught != 0, 0.0))
        regularizer_n = self.agreement * terms.regularizer
        gain_n = self.gold + self.taught
        return TokenLosses(alpha * ce_n + beta * gain_n * kd_n + gamma * regularizer_n, ce_n, kd_n, regularizer_n)


def shares_of(routing: Routing, speakers: int, dtype: torch.dtype) -> list[Tensor]:
    """The share of each speaker in the target, [n] each, summing to 1 everywhere, also where no teacher teaches."""
    if speakers == 2:
        weight1_n = routing.weight1_N.to(dtype).where(taught(routing), 1.0)
        return [weight1_n, 1 - weight1_n]
    return [torch.ones_like(routing.weight1_N, dtype=dtype)] * speakers
