"""The list of a stored generation's files with the SHA-256 of each; its own digest is a tag of the version.

So a changed byte in any stored file, the list included, can be found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from ladder.errors import RegistryError

FILE = "inventory.json"
# MLflow's loader leaves this note beside a local model when it is loaded as models:/Luna@HEAD.
_LOADER_NOTE = "registered_model_meta"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(folder: Path, inventory: str = FILE) -> dict[str, str]:
    """SHA-256 of every file under a folder but the inventory itself, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / inventory)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}


def write_inventory(folder: Path) -> str:
    """Write the inventory of a finished folder and return its digest."""
    return write_files(folder, files_of(folder))


def write_files(folder: Path, files: dict[str, str]) -> str:
    """Write an inventory of these files into a folder and return its digest."""
    path = folder / FILE
    path.write_text(json.dumps(files, indent=1, sort_keys=True), encoding="utf-8")
    return file_digest(path)


def read_inventory(folder: Path, digest: str, inventory: str = FILE) -> dict[str, str]:
    """The recorded digests by relative path.

    Raises:
        RegistryError: the inventory is missing or is not the one whose digest was recorded.
    """
    path = folder / inventory
    found = file_digest(path) if path.is_file() else "no file"
    if found != digest:
        raise RegistryError(
            f"found {found[:12]}, recorded was {digest[:12]}", where=str(path), remedy="restore this file from a backup"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


def without(files: dict[str, str], folders: Collection[str]) -> dict[str, str]:
    """The files that lie in none of these top-level folders."""
    return {path: digest for path, digest in files.items() if path.partition("/")[0] not in folders}


def differences(folder: Path, expected: dict[str, str], inventory: str = FILE) -> list[str]:
    """One sentence for every file that is missing, changed or unexpected."""
    return compare(files_of(folder, inventory), expected)


def compare(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """One sentence for every difference of two lists of files."""
    missing = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    added = [f"{path} does not belong there" for path in sorted(found.keys() - expected.keys() - {_LOADER_NOTE})]
    common = sorted(expected.keys() & found.keys())
    changed = [
        f"{path} was changed: found {found[path][:12]}, recorded was {expected[path][:12]}"
        for path in common
        if found[path] != expected[path]
    ]
    return missing + changed + added
