"""What can be taken in as a model, as far as its path says it: nothing heavy is imported for a refusal."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ladder.errors import ModelError, UsageError
from ladder.manifest.sources import absent


def check_path(path: Path) -> None:
    """See that a path is a folder or a GGUF file, and that a GGUF file can be read here.

    Raises:
        UsageError: it is neither.
        ModelError: the package that reads GGUF is missing.
    """
    check_kind(path)
    if path.is_file():
        check_gguf(path)


def check_kind(path: Path) -> None:
    """See that a path is a folder or a GGUF file.

    Raises:
        UsageError: it is neither, or nothing lies there.
    """
    if not path.exists():
        raise UsageError("does not exist", where=str(path), remedy=absent(path))
    if not path.is_dir() and not (path.suffix.lower() == ".gguf" and path.is_file()):
        raise UsageError(
            "neither a folder nor a .gguf file", where=str(path), remedy="name a Hugging Face folder or a GGUF file"
        )


def check_gguf(path: Path) -> None:
    """Refuse a GGUF file where the package that reads it is missing.

    Raises:
        ModelError: it is missing.
    """
    if find_spec("gguf") is None:
        raise ModelError("reading GGUF needs the package gguf", where=str(path), remedy="pip install gguf")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter (peft) alone, and no model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
