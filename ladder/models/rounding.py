"""The dtype that weights have on disk: given back to files that were written in the dtype of some arithmetic.

Rounding comes before the exam, so that what is examined is what ships; and it is counted, because a change that is
smaller than half the distance of two neighbouring numbers is lost in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ladder.errors import ModelError, RunError
from ladder.models.digest import read_object, tensor_files, weight_files
from ladder.models.preflight import main_dtype, stored_dtypes, stored_shapes

LEAST = 1e-3
"""Share of the changed weights that must survive. Some always do: those that were next to 0."""


@dataclass(frozen=True)
class Rounding:
    """What became of a child's change when its weights were rounded to what they are stored in.

    Weights that were 0 are left out: next to 0 no change is too small, so they say nothing of the others.

    Args:
        dtype: that most of them are stored in.
        changed: weights that differed from what the child started as, before rounding.
        kept: of those, the ones that still differ from it.
    """

    dtype: str
    changed: int
    kept: int

    @property
    def share(self) -> float:
        """Of the changed weights, how many survive, 0 to 1; 1 where none changed."""
        return self.kept / self.changed if self.changed else 1.0

    def metrics(self) -> dict[str, float]:
        """For the MLflow run."""
        return {"rounding/changed": float(self.changed), "rounding/kept_share": self.share}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"share": self.share}

    def line(self) -> str:
        """For a person to read."""
        return (
            f"weights are stored in {self.dtype}: of {self.changed:,} that changed, {self.share:.1%} keep a change "
            "after rounding"
        )


def check_survives(rounding: Rounding, where: str, remedy: str) -> None:
    """Refuse a change that vanishes in rounding.

    Raises:
        RunError: weights changed, and less than ``LEAST`` of them still do.
    """
    if rounding.changed and rounding.share < LEAST:
        back = rounding.changed - rounding.kept
        raise RunError(
            f"{back:,} of {rounding.changed:,} weights that changed are rounded back in {rounding.dtype}: what would "
            "be stored is what it started as",
            where=where,
            remedy=remedy,
        )


def as_stored(folder: Path, like: Path, dtype: str | None = None) -> Rounding | None:
    """Give the weights of a folder the dtype that those of another have on disk, tensor by tensor.

    A tensor that the other has not gets the dtype that most of the other's numbers have.

    Args:
        folder: as ``save_model`` wrote it; its files are written again where they differ.
        like: what it started as.
        dtype: of all weights instead.

    Returns:
        What became of the change, or None where nothing was rounded.

    Raises:
        ModelError: a number is too large for the dtype.
    """
    main = getattr(torch, dtype) if dtype else main_dtype(like)
    wanted = {} if dtype else stored_dtypes(like)
    found = stored_dtypes(folder)
    targets = {name: wanted.get(name, main) for name in found}
    rounded = {name for name, target in targets.items() if torch.promote_types(target, found[name]) != target}
    if targets != found:
        start = tensor_files(like)
        counts = [_rewrite(path, targets, rounded, start) for path in weight_files(folder)]
        _describe(folder, main)
        if rounded:
            return Rounding(_name(main), sum(one[0] for one in counts), sum(one[1] for one in counts))
    return None


def as_on_disk(folder: Path, like: Path) -> None:
    """As ``as_stored`` for a copy of another folder: every number stays what it is, so a tensor that would not hold
    its numbers keeps the dtype that it was written in."""
    found, wanted, main = stored_dtypes(folder), stored_dtypes(like), main_dtype(like)
    targets = {name: wanted.get(name, main) for name in found}
    if targets != found:
        for path in weight_files(folder):
            _rewrite(path, targets, set(), {}, exact=True)
    _describe(folder, main)


def narrowed(folder: Path) -> str:
    """Give the weights of a folder the narrower dtype that holds all their matrices exactly, where there is one.

    Returns:
        The dtype that most of them have now.

    Raises:
        ModelError: the folder cannot be read.
    """
    found, matrices = stored_dtypes(folder), {name for name, shape in stored_shapes(folder).items() if len(shape) > 1}
    owners = tensor_files(folder)
    for dtype in (torch.bfloat16, torch.float16):
        if all(_fits(_read(owners[name], name), dtype) for name in matrices & found.keys()):
            for path in weight_files(folder):
                _rewrite(path, dict.fromkeys(found, dtype), set(), {}, exact=True)
            break
    main = main_dtype(folder)
    _describe(folder, main)
    return _name(main)


def _fits(value: Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(value.to(dtype).to(value.dtype), value)


def _rewrite(
    path: Path,
    targets: Mapping[str, torch.dtype],
    rounded: set[str],
    start: Mapping[str, Path],
    *,
    exact: bool = False,
) -> tuple[int, int]:
    """Write one file again; how many weights had changed, and how many still have."""
    tensors, changed, kept = {}, 0, 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        for name in list(file.keys()):
            value = file.get_tensor(name)
            new = _converted(value, targets.get(name, value.dtype), name, path, exact=exact)
            if name in rounded and name in start:
                before = _read(start[name], name).to(value.dtype)
                if before.shape == value.shape:
                    moved = (value != before) & (before != 0)
                    changed += int(moved.sum())
                    kept += int(((new != before.to(new.dtype)) & moved).sum())
            tensors[name] = new
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata=metadata or {"format": "pt"})
    temporary.replace(path)
    return changed, kept


def _converted(value: Tensor, target: torch.dtype, name: str, path: Path, *, exact: bool) -> Tensor:
    new = value.to(target)
    if exact:
        return new if _fits(value, target) else value
    if not new.isfinite().all() and value.isfinite().all():
        raise ModelError(
            f"{name} holds numbers too large for {_name(target)}",
            remedy="store it in float32 or bfloat16, for a child by student.save_dtype",
        )
    return new


def _describe(folder: Path, main: torch.dtype) -> None:
    """Let config and index say what the files hold."""
    path = folder / "config.json"
    config = read_object(path)
    if config.get("dtype") != _name(main):
        text = json.dumps(config | {"dtype": _name(main)}, indent=2, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = read_object(index)
        sizes = sum(_bytes(file) for file in weight_files(folder))
        content["metadata"] = {**content.get("metadata", {}), "total_size": sizes}
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _bytes(path: Path) -> int:
    """Of a file's tensors: what follows its header, whose length stands in the first 8 bytes."""
    with path.open("rb") as stream:
        return path.stat().st_size - 8 - int.from_bytes(stream.read(8), "little")


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
