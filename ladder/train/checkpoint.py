"""Checkpoints: tensors in safetensors, the rest in JSON, a folder that is either whole or absent. Two are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ladder.system.files import save_folder

KEPT = 2


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


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
