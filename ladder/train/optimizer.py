"""AdamW over the trainable parameters; matrices decay, vectors do not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ladder.manifest.schema import TrainingParams


def adamw(parameters: Mapping[str, nn.Parameter], params: TrainingParams) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter) at the manifest's peak learning rate, each parameter in one pass over memory."""
    matrices = [value for value in parameters.values() if value.ndim >= 2]
    vectors = [value for value in parameters.values() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": params.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=params.lr, fused=True)


def dump_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors, ``{slot}/{parameter}``; empty before the first step."""
    return {
        f"{slot}/{name}": value
        for name, parameter in parameters.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def load_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what ``dump_state`` gave."""
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        parameter = parameters[name]
        on_device = value if slot == "step" else value.to(parameter.device)
        optimizer.state[parameter][slot] = on_device.clone()
