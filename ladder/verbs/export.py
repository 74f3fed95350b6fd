"""A generation as a plain folder that anyone can load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ladder.errors import UsageError
from ladder.models import renew_folder
from ladder.registry import Generation, Registry
from ladder.report.card import for_export
from ladder.system.files import save_folder

ROWS = ("replay.jsonl", "dreams.jsonl")
"""Rows, and texts that begin with words of rows, in a generation's ``ladder`` folder."""


def export_generation(registry: Registry, generation: Generation, directory: Path, *, rows: bool = False) -> Path:
    """Copy a verified generation to a new folder; its model card becomes the folder's README.

    The files are readable as those are that the user writes otherwise; in the store they are their owner's alone. Of a
    generation that was made before folders said to every loader what ladder reads in them, tokenizer and end tokens are
    written anew: it has the digest that it had.

    Args:
        rows: also the replay sample and the dreams, from which its descendants learn in its home.

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
        # It lists what the store keeps, and of this folder the card and maybe more is otherwise.
        (target / ".inventory.json").unlink(missing_ok=True)
        for name in ROWS if not rows else ():
            (target / "ladder" / name).unlink(missing_ok=True)
        # Peft's template for a card, with nothing filled in but a folder of this home.
        (target / "adapter" / "README.md").unlink(missing_ok=True)
        card = target / "ladder" / "README.md"
        if card.is_file():
            text = for_export(card.read_text(encoding="utf-8"), rows=rows)
            (target / "README.md").write_text(text, encoding="utf-8")
            card.unlink()
        _open_up(target)

    directory.parent.mkdir(parents=True, exist_ok=True)
    return save_folder(directory, write)


def _open_up(folder: Path) -> None:
    """Give everything in a folder the mode of a file that the user makes."""
    os.umask(mask := os.umask(0))
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
