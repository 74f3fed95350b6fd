"""Gates and laws by themselves: what a model is examined by that no manifest trained, because it is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ladder.manifest.files import all_files, file_digests, folder_problems
from ladder.manifest.names import Name
from ladder.manifest.plugins import broken_plugins, custom_gate_problems, custom_law_problems
from ladder.manifest.problems import Problem, found, refuse
from ladder.manifest.request import Request, digest_of, validated
from ladder.manifest.schema import Manifest
from ladder.manifest.syntax import read_tree, unequal

IMPORT = "import"
"""What an imported generation has in place of a training method."""
SECTIONS = ("gates", "laws")


def read_rules(name: Name, path: Path | None = None) -> Request:
    """A request that trains nothing, with the gates and laws of a file, or all defaults.

    Args:
        name: of the generation that is examined.
        path: a JSON, YAML or TOML file with the sections ``gates`` and ``laws`` of a manifest.

    Raises:
        ManifestError: it holds something else, or asks for what nobody can find out of a model that is imported.
    """
    tree: Any = {} if path is None else read_tree(path)
    file = Path(f"{name}.json") if path is None else path
    if not isinstance(tree, dict) or (strange := sorted(set(tree) - set(SECTIONS))):
        field, what = ("", found(tree)) if not isinstance(tree, dict) else (strange[0], strange[0])
        remedy = "copy these two sections of a manifest into a file of their own"
        raise refuse(file, [Problem(field, f"found {what}, expected {' and '.join(SECTIONS)} alone", remedy)])
    # Checked as that of a first generation, which has no parent either.
    names = {"child_gen": str(name), "training_method": "pretraining"}
    manifest = validated({"evolution_request": names, **tree}, file)
    folder = file.absolute().parent
    digests, problems = file_digests(manifest, folder)
    problems += [*folder_problems(manifest, folder), *_of_a_training(manifest)]
    problems += [*custom_law_problems(manifest), *custom_gate_problems(manifest), *broken_plugins(manifest)]
    if problems:
        raise refuse(file, problems)
    taken = manifest.evolution_request.model_copy(update={"training_method": IMPORT})
    manifest = manifest.model_copy(update={"evolution_request": taken})
    digest = digest_of(manifest, [digests[named] for _, named in all_files(manifest, folder)]) if path else ""
    return Request(file.absolute(), manifest, name, None, None, digests, digest)


_TOLD = tuple(f"manifest.{told}" for told in (*SECTIONS, "evolution_request.training_method"))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two kept documents (``manifest`` and ``files``) say differently, by dotted name, as ``unequal``.

    One that was imported has defaults in place of a training that never was: beside it gates, laws and the method are
    compared alone, and beside one that was imported unexamined nothing.
    """
    manifests, found = [one["manifest"] for one in (ours, theirs)], unequal(ours, theirs)
    if not all(manifests):
        return {}
    if IMPORT not in [one.get("evolution_request", {}).get("training_method") for one in manifests]:
        return found
    return {name: pair for name, pair in found.items() if name.startswith(_TOLD)}


def _of_a_training(manifest: Manifest) -> Iterator[Problem]:
    """What judges a run, or needs actors."""
    gates, laws = manifest.gates, manifest.laws
    asked = {
        "gates.metrics": bool(gates.metrics),
        "laws.training": laws.training is not None,
        "laws.cooldown_hours": laws.cooldown_hours is not None,
        "laws.approvals": laws.approvals > 0,
    }
    for field, there in asked.items():
        if there:
            yield Problem(
                field, "cannot be held against a model that is imported", "leave it to its children's manifests"
            )
