"""The optimiser over the trainable parameters, and its learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import nn

from ladder.errors import ManifestError
from ladder.manifest import TrainingParams, installed


def lr_factor(step: int, steps: int, warmup: float, kind: Literal["cosine", "linear", "constant"]) -> float:
    """Factor in (0, 1] on the peak learning rate at ``step`` of ``steps``.

    Rises linearly over the first ``warmup`` share of the steps, then falls to zero along a half cosine or a line.
    """
    rise = round(steps * warmup)
    if step < rise:
        return (step + 1) / (rise + 1)
    if kind == "constant":
        return 1.0
    progress = (step - rise) / max(1, steps - rise)
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


Groups = list[dict[str, Any]]
"""Parameter groups as torch takes them: ``params`` and ``weight_decay`` of each."""
_WHERE = "training_params.optimizer"


class OptimizerKind(Protocol):
    """One ``training_params.optimizer``: a class, an object or a module with these two functions."""

    @staticmethod
    def make(groups: Groups, params: TrainingParams) -> torch.optim.Optimizer:
        """The optimiser at the manifest's peak learning rate. The trainer sets ``lr`` of each group at each step.

        What it keeps of a parameter must be tensors, because that is what a checkpoint holds.
        """

    @staticmethod
    def state_bytes(size: int) -> float:
        """Bytes that it keeps for each trained number, which itself takes ``size`` bytes; for the price of a run."""


class AdamW:
    """AdamW (Loshchilov and Hutter), each parameter in one pass over memory."""

    @staticmethod
    def make(groups: Groups, params: TrainingParams) -> torch.optim.AdamW:
        return torch.optim.AdamW(groups, lr=params.lr, fused=True)

    @staticmethod
    def state_bytes(size: int) -> float:
        """Two moments in the parameters' type."""
        return 2 * size


class SGD:
    """Stochastic gradient descent with momentum 0.9."""

    @staticmethod
    def make(groups: Groups, params: TrainingParams) -> torch.optim.SGD:
        return torch.optim.SGD(groups, lr=params.lr, momentum=0.9, fused=True)

    @staticmethod
    def state_bytes(size: int) -> float:
        """The momentum in the parameters' type."""
        return size


def optimizer_kind(params: TrainingParams) -> OptimizerKind:
    """What the manifest's word means.

    Raises:
        ManifestError: it is a plug-in's that is not installed now or cannot be loaded, or no optimiser.
    """
    found = installed.load(installed.OPTIMIZERS, params.optimizer, _WHERE)
    if not (callable(getattr(found, "make", None)) and callable(getattr(found, "state_bytes", None))):
        message = f"{params.optimizer!r} is {found!r:.80}, expected something with make and state_bytes"
        raise ManifestError(message, where=_WHERE, remedy="see docs/extending.md")
    kind: OptimizerKind = found
    return kind


def make_optimizer(parameters: Mapping[str, nn.Parameter], params: TrainingParams) -> torch.optim.Optimizer:
    """The manifest's optimiser over these parameters; matrices decay, vectors do not."""
    matrices = [value for value in parameters.values() if value.ndim >= 2]
    vectors = [value for value in parameters.values() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": params.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return optimizer_kind(params).make(groups, params)
