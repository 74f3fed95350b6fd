"""Read one manifest: its syntax, then what holds for every key and value, then the schema, then its meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ladder.errors import ManifestError
from ladder.manifest import checks_examination, checks_lineage, checks_training
from ladder.manifest.explain import explain
from ladder.manifest.problems import Problem, found, refuse
from ladder.manifest.schema import Manifest
from ladder.manifest.syntax import read_tree, tree_problems

CHECKS = (*checks_lineage.CHECKS, *checks_training.CHECKS, *checks_examination.CHECKS)


def semantic_problems(manifest: Manifest) -> list[Problem]:
    """Everything that contradicts itself in a manifest whose fields are valid one by one."""
    return [problem for check in CHECKS for problem in check(manifest)]


def load_manifest(path: str | Path) -> Manifest:
    """The manifest in a JSON, YAML or TOML file, with the file's own field names and the schema's defaults.

    Nothing is interpolated, and no file that the manifest names is looked at: `read_request` does that.

    Raises:
        ManifestError: one error that lists every problem of the first stage that finds any. ``where`` is
            ``file: line, column`` for syntax and ``file: field.path`` (the first one) for the rest.
    """
    return validated(read_tree(Path(path)), path)


def validated(tree: Any, file: str | Path) -> Manifest:
    """The manifest in a tree of plain values; ``file`` is only named in errors.

    Raises:
        ManifestError: as `load_manifest`.
    """
    if not isinstance(tree, dict):
        raise ManifestError(
            f"found {found(tree)}, expected sections at the top level",
            where=str(file),
            remedy="start with evolution_request",
        )
    if problems := tree_problems(tree):
        raise refuse(file, problems)
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        problems = explain(error, tree)
    else:
        problems = semantic_problems(manifest)
    if problems:
        raise refuse(file, problems)
    return manifest
