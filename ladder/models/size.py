"""Whether a config asks for what the weights beside it hold, seen from headers alone: a lie would take all memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig

from ladder.errors import ModelError, said
from ladder.models.digest import read_object, weight_files

_SLACK = 10_000_000
"""Numbers that a model may have beyond twice those in its files: heads that are not stored, masks, positions. What is
missing or of another shape is named when the weights are loaded."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""What weights are stored in, by the names that safetensors gives it."""
_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"),
    *("num_mtp_layers", "num_nextn_predict_layers", "num_residual_layers"),
)
_LABELS = ("num_labels", "_num_labels", "num_classes")
_MOST_LABELS = 100_000
"""A config makes a name for each label, whether or not the model tells any apart."""


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by its name, without reading one.

    Raises:
        ModelError: there are no safetensors, or their headers are malformed.
    """
    return {name: shape for name, (shape, _) in _headers(folder).items()}


def stored_dtypes(folder: Path) -> dict[str, torch.dtype]:
    """The dtype on disk of every tensor of floating numbers by its name, without reading one.

    Raises:
        ModelError: there are no safetensors, or their headers are malformed.
    """
    dtypes = {name: _FLOATS.get(code) for name, (_, code) in _headers(folder).items()}
    return {name: dtype for name, dtype in dtypes.items() if dtype is not None}


def main_dtype(folder: Path) -> torch.dtype:
    """The dtype on disk that most of a folder's floating numbers have; float32 where it has none.

    Raises:
        ModelError: as ``stored_dtypes``.
    """
    numbers: dict[torch.dtype, int] = {}
    for shape, code in _headers(folder).values():
        if (dtype := _FLOATS.get(code)) is not None:
            numbers[dtype] = numbers.get(dtype, 0) + prod(shape)
    return max(numbers, key=lambda dtype: (numbers[dtype], str(dtype)), default=torch.float32)


def stored_bytes(folder: Path) -> int:
    """Bytes of a folder's weight files.

    Raises:
        ModelError: there are no safetensors.
    """
    try:
        return sum(path.stat().st_size for path in weight_files(folder))
    except OSError as error:
        raise ModelError(f"unreadable weights: {said(error)}", where=str(folder), remedy="restore it") from error


def _headers(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of every tensor, and its dtype in the words of safetensors."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as tensors:
                for name in list(tensors.keys()):
                    part = tensors.get_slice(name)
                    found[name] = (tuple(part.get_shape()), part.get_dtype())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"unreadable weights: {said(error)}", where=str(folder), remedy="restore this folder"
        ) from error
    return found


def check_layers(folder: Path) -> None:
    """Refuse a config with more layers than the files have tensors, before anything counts up to them.

    Raises:
        ModelError: there are more, or config or weights cannot be read.
    """
    most = max(_counts(read_object(folder / "config.json"), _LAYERS), default=0)
    stored = len(stored_shapes(folder))
    if most > stored:
        raise _implausible(folder, f"{most} layers", f"{stored} tensors")


def check_labels(folder: Path) -> None:
    """Refuse a config that names more labels than anybody tells apart, before it names them.

    Raises:
        ModelError: there are more, or the config cannot be read.
    """
    most = max(_counts(read_object(folder / "config.json"), _LABELS), default=0)
    if most > _MOST_LABELS:
        raise ModelError(
            f"cannot be loaded: the config asks for {most:,} labels, at most {_MOST_LABELS:,} are read",
            where=str(folder),
            remedy="a model that writes text needs none: take num_labels out of config.json",
        )


def check_size(kind: Any, config: PretrainedConfig, folder: Path) -> None:
    """Refuse a config that asks for far more numbers than the files hold, before they are allocated.

    Args:
        kind: the Auto class that builds the model.

    Raises:
        ModelError: it does; or no model can be built from the config.
    """
    held = sum(map(prod, stored_shapes(folder).values()))
    try:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a size that makes no sense brings about
        raise ModelError(f"cannot be loaded: {said(error)}", where=str(folder), remedy="restore config.json") from error
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if asked > 2 * held + _SLACK:
        raise _implausible(folder, f"{asked:,} numbers", f"{held:,}")


def _counts(value: Any, names: Collection[str]) -> Iterator[int]:
    """The numbers under these names, however deep they stand."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in names and isinstance(below, int):
                yield below
            yield from _counts(below, names)
    elif isinstance(value, list):
        for below in value:
            yield from _counts(below, names)


def _implausible(folder: Path, asked: str, held: str) -> ModelError:
    message = f"cannot be loaded: the config asks for {asked}, the weight files hold {held}"
    return ModelError(message, where=str(folder), remedy="config.json and weights belong together; restore both")
