"""Folders of a home that can go, told before they do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHES = ("signals", "tokens", "answers", "suites")
"""Folders of ``home/cache`` that a run fills again when it needs them."""


@dataclass(frozen=True)
class Part:
    """Something that can go: whose or which it is, the folders it fills, and their bytes."""

    name: str
    folders: tuple[Path, ...]
    size: int


def existing(named: Mapping[str, Sequence[Path]]) -> tuple[Part, ...]:
    """What exists of some folders. A link is not followed and stays."""
    there = {
        name: tuple(folder for folder in folders if folder.is_dir() and not folder.is_symlink())
        for name, folders in named.items()
    }
    return tuple(Part(name, folders, sum(map(_bytes, folders))) for name, folders in there.items() if folders)


def remove(parts: Iterable[Part]) -> None:
    """Remove their folders."""
    for part in parts:
        for folder in part.folders:
            shutil.rmtree(folder)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
