"""Read one manifest: its syntax, then what holds for every key and value, then the schema, then its meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ladder.errors import ManifestError
from ladder.manifest import checks_examination, checks_lineage, checks_training
from ladder.manifest.explain import explain
from ladder.manifest.installed import KEPT, method_facts
from ladder.manifest.problems import Problem, found, refuse
from ladder.manifest.schema import Manifest
from ladder.manifest.syntax import read_tree, tree_problems
from ladder.manifest.words import modern, written_twice

CHECKS = (*checks_lineage.CHECKS, *checks_training.CHECKS, *checks_examination.CHECKS)


def semantic_problems(manifest: Manifest) -> list[Problem]:
    """Everything that contradicts itself in a manifest whose fields are valid one by one."""
    try:
        method_facts(manifest.evolution_request.training_method)
    except ManifestError as error:  # a plug-in that is installed and broken
        return [Problem("evolution_request.training_method", error.message, error.remedy or "")]
    return [problem for check in CHECKS for problem in check(manifest)]


def load_manifest(path: str | Path) -> Manifest:
    """The manifest in a JSON, YAML or TOML file, with the file's own field names and the schema's defaults.

    Nothing is interpolated, and no file that the manifest names is looked at: `read_request` does that.

    Raises:
        ManifestError: one error that lists every problem of the first stage that finds any. ``where`` is
            ``file: line, column`` for syntax and ``file: field.path`` (the first one) for the rest.
    """
    return validated(read_tree(Path(path)), path)


def validated(tree: Any, file: str | Path, *, kept: bool = False) -> Manifest:
    """The manifest in a tree of plain values; ``file`` is only named in errors.

    Args:
        kept: it was stored with a generation, so it meant something when that was made: neither is looked whether what
            it names is installed now, nor what its fields mean together to this version of ladder.

    Raises:
        ManifestError: as `load_manifest`.
    """
    if not isinstance(tree, dict):
        raise ManifestError(
            f"found {found(tree)}, expected sections at the top level",
            where=str(file),
            remedy="start with evolution_request",
        )
    if problems := [*tree_problems(tree), *written_twice(tree)]:
        raise refuse(file, problems)
    today = modern(tree)
    try:
        manifest = Manifest.model_validate(today.tree, context={KEPT: kept})
    except ValidationError as error:
        problems = explain(error, today.tree)
    else:
        problems = [] if kept else semantic_problems(manifest)
    if problems:
        # The file may call a field by its old name, and is told of that.
        named = [replace(problem, field=today.written.get(problem.field, problem.field)) for problem in problems]
        raise refuse(file, named)
    return manifest
