"""Checkpoints: tensors in safetensors, the rest in JSON, a folder that is either whole or absent. Two are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from ladder.system.files import save_folder

KEPT = 2
"""The newest and the one before. While a checkpoint takes the place of one of the same step, there is a moment without
either (``save_folder`` renames twice), and a kill in it must leave something to go on from."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a trainer needs to go on as if it had never stopped.

    Args:
        step: steps that are done.
        tensors: parameters, EMA, optimiser and random state, by name.
        state: counters, JSON-able.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder/step-00000100`` and drop all but the newest two."""

    # What would be lost is written first and removed last. Both files go into a folder without a reader's name; it is
    # synced and renamed when it is whole, and only then an older checkpoint goes. A kill between leaves one too many,
    # which the next save drops.
    def write(target: Path) -> None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
        save_file(tensors, target / "tensors.safetensors")
        (target / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.state}), encoding="utf-8")

    save_folder(folder / f"step-{checkpoint.step:08d}", write)
    for old in _folders(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None."""
    folders = _folders(folder)
    if not folders:
        return None
    state = json.loads((folders[-1] / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(state.pop("step"), load_file(folders[-1] / "tensors.safetensors"), state)


def latest_step(folder: Path) -> int:
    """Steps that the newest checkpoint has behind it; 0 where there is none."""
    return max((int(found.name.removeprefix("step-")) for found in _folders(folder)), default=0)


def dump_state(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors, ``{slot}/{parameter}``; empty before the first step.

    Args:
        model: whose parameters are optimised, by the names that they have there; others may be frozen.
    """
    # Asked before a first step, torch takes one with a learning rate of 0, so that there is a state: it would count.
    if not optimizer.state:
        return {}
    by_name = _by_name(optimizer, model)["state"]
    return {f"{slot}/{name}": value for name, slots in by_name.items() for slot, value in slots.items()}


def load_state(optimizer: optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put a copy of what ``dump_state`` gave into an optimiser that has not taken a step.

    The learning rate and what else belongs to a group stay as they are: they are the manifest's.
    """
    if not tensors:
        return
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        state.setdefault(name, {})[slot] = value.clone()
    told: dict[str, Any] = {"state": state, "param_groups": _by_name(optimizer, model)["param_groups"]}
    # Not strict: a parameter that never had a gradient has no state.
    set_optimizer_state_dict(model, optimizer, told, options=StateDictOptions(strict=False))


def _by_name(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """State and groups, as torch gives them, under the names of the model's parameters."""
    return dict(get_optimizer_state_dict(model, optimizer))


def _folders(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first: numbers have leading zeros, and what is being written begins with a dot."""
    return sorted(folder.glob("step-*"))
