"""A generation as a plain folder that anyone can load."""

from __future__ import annotations

import shutil
from pathlib import Path

from ladder.errors import UsageError
from ladder.models import renew_folder
from ladder.registry import Generation, Registry
from ladder.system.files import save_folder


def export_generation(registry: Registry, generation: Generation, directory: Path) -> Path:
    """Copy a verified generation to a new folder; its model card becomes the folder's README.

    Of a generation that was made before folders said to every loader what ladder reads in them, tokenizer and end
    tokens are written anew: it has the digest that it had.

    Raises:
        UsageError: the folder exists.
        RegistryError: the stored generation is damaged.
    """
    if directory.exists():
        raise UsageError("exists already", where=str(directory), remedy="name a folder that does not exist")
    folder = registry.materialize(generation)

    def write(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True)
        renew_folder(target)
        card = target / "ladder" / "README.md"
        if card.is_file():
            card.rename(target / "README.md")

    directory.parent.mkdir(parents=True, exist_ok=True)
    return save_folder(directory, write)
