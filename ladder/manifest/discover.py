"""Find the manifests among files and folders, in the order in which the ladder is climbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ladder.errors import ManifestError
from ladder.manifest.files import resolved
from ladder.manifest.load import load_manifest
from ladder.manifest.names import Name
from ladder.manifest.request import Request, read_request
from ladder.manifest.syntax import SUFFIXES, first_bytes, read_tree

_MARK = "evolution_request"


def discover(paths: Iterable[str | Path]) -> list[Path]:
    """Manifest files, sorted by family and child index. The same file given twice counts once.

    A folder means the JSON, YAML and TOML files directly in it that hold a top-level ``evolution_request``.

    Raises:
        ManifestError: a path that does not exist, a folder without manifests, a broken manifest, or two files that
            describe the same child.
    """
    by_file = {resolved(file): file for path in paths for file in _files(Path(path))}
    by_child: dict[Name, Path] = {}
    for file in by_file.values():
        child = Name.parse(load_manifest(file).evolution_request.child_gen)
        if child in by_child:
            raise ManifestError(
                f"found {child} again, which {by_child[child]} already describes",
                where=f"{file}: evolution_request.child_gen",
                remedy="keep one of the two, or run them one after the other",
            )
        by_child[child] = file
    return [by_child[child] for child in sorted(by_child)]


def read_requests(paths: Iterable[str | Path]) -> list[Request]:
    """Every manifest among files and folders, in ladder order, each with the files it names.

    Raises:
        ManifestError: as ``discover`` and ``read_request``.
    """
    return [read_request(path) for path in discover(paths)]


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    manifests = [file for file in _entries(path) if _is_manifest(file)]
    if not manifests:
        raise ManifestError(
            "the folder holds no manifest",
            where=str(path),
            remedy=f"put a {', '.join(SUFFIXES)} file with a top-level {_MARK} into it",
        )
    yield from manifests


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        raise ManifestError(message, where=str(folder), remedy="make it readable") from None


def _is_manifest(file: Path) -> bool:
    """Whether a file in a folder is meant as a manifest. One without the word is somebody else's, even if broken."""
    if file.suffix.lower() not in SUFFIXES or file.name.startswith(".") or not file.is_file():
        return False
    if _MARK.encode() not in first_bytes(file):
        return False
    tree = read_tree(file)
    return isinstance(tree, dict) and _MARK in tree
