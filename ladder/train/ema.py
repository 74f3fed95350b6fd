"""Exponential moving average of one run's own trajectory (Polyak averaging), in float32.

Generations are never averaged with one another; this smooths a single run and is what is examined and saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def ema_decay(update: int, decay: float) -> float:
    """Decay at the given update (0 for the first): ``min(decay, (1 + t) / (10 + t))``, so that the start is forgotten.

    The warm-up is the one of TensorFlow's ``ExponentialMovingAverage(num_updates)``.
    """
    return min(decay, (1 + update) / (10 + update))


def start_weight(updates: int, decay: float) -> float:
    """How much the starting point still weighs after so many updates, 0 to 1."""
    weight = 1.0
    for update in range(updates):
        weight *= ema_decay(update, decay)
    return weight


class Ema:
    """A float32 shadow of the trainable parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Move the shadow towards the parameters after an optimiser step."""
        weight = 1.0 - ema_decay(self.updates, self.decay)
        for name, value in parameters.items():
            self.shadow[name].lerp_(value.detach().float(), weight)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Write the shadow into the parameters."""
        for name, value in parameters.items():
            value.copy_(self.shadow[name])

    @torch.no_grad()
    def replace(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Make the shadow what the parameters are, in float32 where they were narrower. It ends the training."""
        for name, value in parameters.items():
            if value.dtype == torch.float32:
                value.copy_(self.shadow[name])
            else:
                value.data = self.shadow[name]

    @contextmanager
    def lent(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The shadow in the parameters' place for a while; then they are what they were, bit by bit."""
        own = {name: value.detach().clone() for name, value in parameters.items()}
        self.copy_to(parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in parameters.items():
                    value.copy_(own[name])

    def load(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        """Continue from a checkpoint."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
        self.updates = updates
