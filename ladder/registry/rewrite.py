"""Other sidecars for a stored generation: staged beside its artifact, put in place, and swept up after a crash."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ladder.registry import versions
from ladder.registry.artifacts import (
    FILE,
    SIDECARS,
    file_digest,
    files_of,
    local_folder,
    local_path,
    read_inventory,
    without,
    write_files,
)
from ladder.registry.generation import Generation
from ladder.registry.runs import find_experiment
from ladder.registry.store import Store
from ladder.registry.versions import pages
from ladder.system.files import save_folder, sync


def stage(store: Store, generation: Generation, changes: Mapping[str, bytes | None]) -> str:
    """Write the sidecars as they shall be, durably; returns the digest of their inventory. No reader sees them yet.

    Args:
        changes: the new content of files by their path in ``ladder/``; None for one that goes.

    Raises:
        RegistryError: the files lie on a server, or the inventory is not the recorded one.
    """
    artifact = local_folder(store, generation)
    others = without(read_inventory(artifact, generation.inventory), [SIDECARS])

    def write(target: Path) -> None:
        kept = files_of(artifact / SIDECARS).keys() - changes.keys()
        contents = {name: (artifact / SIDECARS / name).read_bytes() for name in kept} | dict(changes)
        for name, content in contents.items():
            if content is not None:
                path = target / SIDECARS / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        write_files(target, others | _own(target))

    return file_digest(save_folder(_staged(artifact), write) / FILE)


def put_in_place(store: Store, family: str, version: int, inventory: str) -> bool:
    """Replace a version's sidecars by the staged ones. Safe to repeat; call it under the family's head lock.

    Args:
        inventory: the digest of the inventory that was staged.

    Returns:
        Whether they are in place. Not where somebody removed or changed what was staged, or the version: then nothing
        is touched, because one generation must not stop its family.
    """
    artifact = _artifact(store, family, version)
    if artifact is None:
        return False
    _replace(artifact, inventory)
    if not _is(artifact / FILE, inventory):
        return False
    shutil.rmtree(_staged(artifact), ignore_errors=True)
    now = datetime.now(UTC).isoformat()
    for name, value in ((versions.INVENTORY, inventory), (versions.ERASED, now)):
        store.client.set_model_version_tag(family, str(version), name, value)
    return True


def _replace(artifact: Path, inventory: str) -> None:
    """Move what is staged and whole: first the folder, then the inventory."""
    staged = _staged(artifact)
    if not _is(staged / FILE, inventory):
        return
    wanted = read_inventory(staged, inventory)
    if _has_sidecars(staged, wanted):
        if (artifact / SIDECARS).is_dir():
            shutil.rmtree(artifact / SIDECARS)
        (staged / SIDECARS).rename(artifact / SIDECARS)
        sync(artifact)
    if _has_sidecars(artifact, wanted):
        (staged / FILE).replace(artifact / FILE)
        sync(artifact)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _has_sidecars(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the sidecars in a folder are those of an inventory."""
    return _own(folder) == {path: digest for path, digest in files.items() if path.startswith(f"{SIDECARS}/")}


def _own(folder: Path) -> dict[str, str]:
    """SHA-256 of the sidecars in a folder, by their paths in it."""
    return {f"{SIDECARS}/{name}": digest for name, digest in files_of(folder / SIDECARS).items()}


def _artifact(store: Store, family: str, version: int) -> Path | None:
    """Where a version's files lie on this machine; None where the version or its logged model was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        generation = versions.to_generation(store.client.get_model_version(family, str(version)), is_head=False)
        return local_path(str(store.client.get_logged_model(generation.model_id).artifact_location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def staged_beside(artifact: Path) -> list[Path]:
    """What rewritings that were cut off, and are not open in the history any more, left beside an artifact."""
    staged = _staged(artifact)
    return [staged, *sorted(artifact.parent.glob(f".{staged.name}.*"))]


def _staged(artifact: Path) -> Path:
    return artifact.with_name("staged")


def leftovers(store: Store, family: str, known: Sequence[Generation]) -> list[Path]:
    """Folders of this machine that no generation needs; of weights that became no version only the sidecars.

    Call it under the family's evolve and head lock, or only to tell.

    Args:
        known: all generations of the family.
    """
    recorded, found = {each.model_id for each in known}, []
    for model_id, artifact in _artifacts(store, family).items():
        found += [*([] if model_id in recorded else [artifact / SIDECARS]), *staged_beside(artifact)]
    return [*found, *sorted(store.home.glob(".store.*.tmp"))]


def _artifacts(store: Store, family: str) -> dict[str, Path]:
    """Where the family's logged models lie on this machine, by their ids."""
    experiment = find_experiment(store, family)
    models = pages(store.client.search_logged_models, experiment_ids=[experiment]) if experiment else ()
    placed = {str(model.model_id): local_path(str(model.artifact_location)) for model in models}
    return {model_id: folder for model_id, folder in placed.items() if folder is not None}
