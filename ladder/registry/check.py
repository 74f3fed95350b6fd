"""Is a stored generation still what was recorded?"""

from __future__ import annotations

from pathlib import Path

from ladder.errors import LadderError, RegistryError
from ladder.registry.artifacts import MODEL, WEIGHTS, stored_folder
from ladder.registry.generation import Generation
from ladder.registry.inventory import compare, differences, files_of, read_inventory, without
from ladder.registry.store import Store


def folder_problems(folder: Path, digest: str, inventory: str) -> list[str]:
    """What is wrong with a stored artifact: any changed, missing or added byte, and a model with another digest."""
    from ladder.models.digest import folder_digest

    try:
        problems = differences(folder, read_inventory(folder, inventory))
        found = folder_digest(folder / MODEL)
    except (LadderError, OSError) as error:  # OSError: the disk cannot read a file.
        return [str(error)]
    if found != digest:
        problems.append(f"the model's digest is {found[:12]}, recorded was {digest[:12]}")
    return problems


def problems_of(store: Store, generation: Generation) -> list[str]:
    """What is wrong with a generation's stored files; empty where nothing is. A pruned one's weights do not count."""
    try:
        with stored_folder(store, generation.model_id) as folder:
            if generation.pruned:
                return sidecar_problems(folder, generation.inventory)
            return folder_problems(folder, generation.digest, generation.inventory)
    except RegistryError as error:
        return [str(error)]


def sidecar_problems(folder: Path, inventory: str) -> list[str]:
    """What is wrong with a stored artifact but for its weights.

    Raises:
        RegistryError: the inventory is not the recorded one.
    """
    found, expected = files_of(folder), read_inventory(folder, inventory)
    return compare(without(found, WEIGHTS), without(expected, WEIGHTS))


def require_weights(generation: Generation) -> None:
    """Refuse a generation whose weights were pruned.

    Raises:
        RegistryError: saying when, and what still works.
    """
    if generation.pruned:
        raise RegistryError(
            f"{generation.ref} is {generation.verdict}, and its weights were pruned on {generation.pruned:%Y-%m-%d}",
            where=f"version {generation.version} of {generation.name.family}",
            remedy="show and lineage still work; only a backup from before has the weights",
        )


def require_sound(store: Store, generation: Generation) -> None:
    """Refuse a generation whose stored files were changed.

    Raises:
        RegistryError: naming the first problem and how many there are.
    """
    if problems := problems_of(store, generation):
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise RegistryError(
            f"{generation.ref} is damaged: {problems[0]}{more}",
            where=f"version {generation.version} of {generation.name.family}",
            remedy="restore the files from a backup, or choose another generation",
        )
