"""Other sidecars for a stored generation: first staged beside its artifact, then put in place.

Between the two stands an event that is opened in the family's history. So after a crash either nothing has changed, or
whoever settles the history puts in place what is staged. Its weights are never touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ladder.models.save import save_folder, sync
from ladder.registry import tags
from ladder.registry.artifacts import SIDECARS, local_folder
from ladder.registry.generation import Generation
from ladder.registry.inventory import FILE, file_digest, files_of, read_inventory, without, write_files
from ladder.registry.store import Store


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
        own = {f"{SIDECARS}/{name}": digest for name, digest in files_of(target / SIDECARS).items()}
        write_files(target, others | own)

    return file_digest(save_folder(_staged(artifact), write) / FILE)


def put_in_place(store: Store, family: str, version: int, inventory: str) -> None:
    """Replace a version's sidecars by the staged ones. Safe to repeat; call it under the family's head lock.

    Raises:
        RegistryError: what is in place afterwards has another inventory.
    """
    generation = tags.to_generation(store.client.get_model_version(family, str(version)), is_head=False)
    artifact = local_folder(store, generation)
    staged = _staged(artifact)
    if (staged / SIDECARS).is_dir():
        if (artifact / SIDECARS).is_dir():
            shutil.rmtree(artifact / SIDECARS)
        (staged / SIDECARS).rename(artifact / SIDECARS)
        sync(artifact)
    if (staged / FILE).is_file():
        (staged / FILE).replace(artifact / FILE)
        sync(artifact)
    shutil.rmtree(staged, ignore_errors=True)
    read_inventory(artifact, inventory)
    now = datetime.now(UTC).isoformat()
    for name, value in ((tags.INVENTORY, inventory), (tags.ERASED, now)):
        store.client.set_model_version_tag(family, str(version), name, value)


def _staged(artifact: Path) -> Path:
    return artifact.with_name("staged")
