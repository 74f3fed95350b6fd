"""Checkpoints: tensors in safetensors, the rest in JSON, a folder that is either whole or absent. Two are kept.

Several ranks write one folder together (torch's distributed checkpoint), each what it holds; any number of ranks, also
one alone, goes on from either kind.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as distributed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim
from torch.distributed import is_initialized
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from ladder.system.files import save_folder
from ladder.train.ranks import ALONE, Ranks

_TENSORS, _PARTS = "tensors.safetensors", "parts"
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


def save_checkpoint(folder: Path, checkpoint: Checkpoint, ranks: Ranks = ALONE) -> None:
    """Write ``folder/step-00000100`` and drop all but the newest two. All ranks must save, each its own tensors."""
    begin_checkpoint(folder, checkpoint, ranks)()


def begin_checkpoint(folder: Path, checkpoint: Checkpoint, ranks: Ranks) -> Callable[[], None]:
    """Take what a checkpoint holds, which may change from here on, and begin to write it; by threads beside the
    training where the ranks have a group aside for that, else at once.

    Returns:
        What waits until it is written, puts it in place as ``save_checkpoint``, and must be called by all ranks.
    """

    # What would be lost is written first and removed last. All files go into a folder without a reader's name; it is
    # synced and renamed when it is whole, and only then an older checkpoint goes. A kill between leaves one too many,
    # which the next save drops.
    def write(target: Path) -> None:
        if ranks.world == 1:
            tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
            save_file(tensors, target / _TENSORS)
        else:
            (folder / _PARTS).rename(target / _PARTS)
        (target / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.state}), encoding="utf-8")

    written = _begin_parts(folder / _PARTS, checkpoint.tensors, ranks) if ranks.world > 1 else None

    def put_in_place() -> None:
        with ranks.together():
            if written is not None:
                written.result()
        with ranks.together():
            if ranks.first:
                save_folder(folder / f"step-{checkpoint.step:08d}", write)
                for old in _folders(folder)[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)

    return put_in_place


def _begin_parts(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> Future[Any] | None:
    """Let every rank write what it holds; None where that is done already."""
    with ranks.together():
        if ranks.first:
            shutil.rmtree(folder, ignore_errors=True)
    if ranks.aside is None:
        distributed.save(dict(tensors), checkpoint_id=folder)
        return None
    begun = distributed.async_save(dict(tensors), checkpoint_id=folder, process_group=ranks.aside)
    assert isinstance(begun, Future), "it was told of no stager"
    return begun


def latest_checkpoint(folder: Path, pattern: Callable[[str], Tensor | None] = lambda key: None) -> Checkpoint | None:
    """The newest checkpoint, or None. Where ranks wrote it together, all ranks must read it.

    Args:
        pattern: of a tensor's key the parameter that it is about; where that is split over ranks, so is what is read.
    """
    folders = _folders(folder)
    if not folders:
        return None
    newest = folders[-1]
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    if (newest / _TENSORS).is_file():
        tensors = {key: part_of(value, pattern(key)) for key, value in load_file(newest / _TENSORS).items()}
    else:
        tensors = _read_parts(newest / _PARTS, pattern)
    return Checkpoint(state.pop("step"), tensors, state)


def _read_parts(folder: Path, pattern: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """What ranks wrote together; each reads what it needs of it."""
    known = FileSystemReader(folder).read_metadata().state_dict_metadata
    sizes = {key: value for key, value in known.items() if isinstance(value, TensorStorageMetadata)}
    tensors = {key: _room(value, pattern(key)) for key, value in sizes.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # A rank alone needs none.
        distributed.load(tensors, checkpoint_id=folder, no_dist=not is_initialized())
    return tensors


def _room(stored: TensorStorageMetadata, pattern: Tensor | None) -> Tensor:
    """An empty tensor for a stored one; split as its parameter is, where the two have one shape."""
    dtype = stored.properties.dtype
    if pattern is not None and stored.size == pattern.shape:
        return torch.empty_like(pattern, dtype=dtype, requires_grad=False)
    return torch.empty(stored.size, dtype=dtype)


def part_of(value: Tensor, pattern: Tensor | None) -> Tensor:
    """This rank's part of a whole tensor, split as its parameter is; no rank asks another."""
    if not isinstance(pattern, DTensor) or value.shape != pattern.shape:
        return value
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None)


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
