"""A world whose truth is known: a table of next-token probabilities, and teachers that are wrong in known ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

V, LATENT, CONTEXT = 64, 8, 8
"""Tokens, width of the factor that makes some alike, and tokens that a student reads."""
BAND = {1: 1.5, 2: 0.75, 3: 0.5}
"""What is added to the logits of the tokens so many places further on or back, round the circle."""


@dataclass(frozen=True, eq=False)
class World:
    """ln P(next | last), float64 [V, V], and how often each token stands last in a context, [V]."""

    log_p_VV: Tensor
    last_V: Tensor

    @classmethod
    def of(cls, seed: int) -> World:
        factor_VF = torch.randn(V, LATENT, generator=_generator(seed, 0), dtype=torch.float64)
        logits_VV, place_V = factor_VF @ factor_VF.T / LATENT**0.5, torch.arange(V)
        for distance, bonus in BAND.items():
            for sign in (1, -1):
                logits_VV[place_V, (place_V + sign * distance) % V] += bonus
        log_p_VV = logits_VV.log_softmax(-1)
        first_V = torch.full((V,), 1 / V, dtype=torch.float64)
        return cls(log_p_VV, first_V @ torch.linalg.matrix_power(log_p_VV.exp(), CONTEXT - 1))

    def rows(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Contexts [n, 8] whose first token is any, and the next token of each, int64 [n]."""
        tokens = [torch.randint(V, (n,), generator=generator)]
        for _ in range(CONTEXT):
            tokens.append(torch.multinomial(self.log_p_VV[tokens[-1]].exp(), 1, generator=generator).squeeze(-1))
        return torch.stack(tokens[:-1], 1), tokens[-1]

    def kl(self, log_q_VV: Tensor) -> float:
        """KL(P || q) in nats, over the contexts of this world."""
        kl_V = (self.log_p_VV.exp() * (self.log_p_VV - log_q_VV.double())).sum(-1)
        return float(self.last_V @ kl_V)

    def entropy_rate(self) -> float:
        """-E ln P(next | last) in nats: what no model can be below."""
        return float(-self.last_V @ (self.log_p_VV.exp() * self.log_p_VV).sum(-1))

    def noisy(self, noise: float, seed: int) -> Tensor:
        """A teacher's logits [V, V]: the truth's with normal noise of this deviation, once and for all."""
        return self.log_p_VV + noise * torch.randn(V, V, generator=_generator(seed, 1), dtype=torch.float64)

    def poisoned(self, noise: float, seed: int) -> Tensor:
        """The logits of a teacher that says of each token what such a noisy one says of another: it is as sure, and
        wrong."""
        return self.noisy(noise, seed)[torch.randperm(V, generator=_generator(seed, 2))]


def _generator(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * seed + purpose)
