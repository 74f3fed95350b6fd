"""Generations as plain folders: Hugging Face files on top, ``ladder/`` and ``adapter/`` beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ladder.errors import LadderError, RegistryError
from ladder.registry.artifacts import MODEL, PARTS, SIDECARS, local_folder, stored_folder
from ladder.registry.check import require_sound, require_weights
from ladder.registry.generation import Generation
from ladder.registry.inventory import FILE, differences, read_inventory
from ladder.registry.locks import family_lock
from ladder.registry.store import Store

_BUILD_SECONDS = 1800.0
_HIDDEN_INVENTORY = f".{FILE}"

Signature = tuple[tuple[str, int, int], ...]


def folder_of(home: Path, generation: Generation) -> Path:
    """Where a generation is, or would be, materialised."""
    return home / "cache" / "generations" / generation.digest / generation.inventory[:12]


class GenerationCache:
    """Folders under ``home/cache/generations/<digest>/<start of the inventory's digest>/``.

    Generations with equal weights can have different sidecars, hence the second part. A folder is verified byte for
    byte before its first use by this object; afterwards sizes and times tell whether it was touched.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._verified: dict[Path, Signature] = {}

    def materialize(self, generation: Generation) -> Path:
        """The generation's folder. A damaged one is built again from the stored artifact.

        Raises:
            RegistryError: the stored artifact itself is damaged or gone, or its weights were pruned.
        """
        require_weights(generation)
        folder = folder_of(self._store.home, generation)
        if self._is_sound(folder, generation):
            return folder
        with family_lock(self._store.home, generation.name.family, "cache", timeout=_BUILD_SECONDS):
            if not self._is_sound(folder, generation):
                self._build(folder, generation)
        return folder

    def sidecars(self, generation: Generation) -> Path:
        """The folder with the generation's card, report, page, manifest and probes; a pruned one has it, too.

        Raises:
            RegistryError: the stored files are damaged or gone.
        """
        if not generation.pruned:
            return self.materialize(generation) / SIDECARS
        require_sound(self._store, generation)
        return local_folder(self._store, generation) / SIDECARS

    def _is_sound(self, folder: Path, generation: Generation) -> bool:
        if not folder.is_dir():
            return False
        signature = _signature(folder)
        if self._verified.get(folder) == signature:
            return True
        if _problems(folder, generation):
            return False
        self._verified[folder] = signature
        return True

    def _build(self, folder: Path, generation: Generation) -> None:
        from ladder.models.save import save_folder

        require_sound(self._store, generation)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left_behind)
        with stored_folder(self._store, generation.model_id) as artifact:
            save_folder(folder, lambda target: _copy(artifact, target))
        if problems := _problems(folder, generation):
            raise RegistryError(
                f"the copy of {generation.ref} differs from the artifact: {problems[0]}",
                where=str(folder),
                remedy="check this disk, then repeat the command",
            )
        self._verified[folder] = _signature(folder)


def _copy(artifact: Path, target: Path) -> None:
    shutil.copytree(artifact / MODEL, target, dirs_exist_ok=True)
    for part in PARTS:
        if (artifact / part).is_dir():
            shutil.copytree(artifact / part, target / part)
    shutil.copy2(artifact / FILE, target / _HIDDEN_INVENTORY)


def _problems(folder: Path, generation: Generation) -> list[str]:
    from ladder.models.digest import folder_digest

    try:
        expected = _expected(read_inventory(folder, generation.inventory, _HIDDEN_INVENTORY))
        problems = differences(folder, expected, _HIDDEN_INVENTORY)
        found = folder_digest(folder)
    except LadderError as error:
        return [str(error)]
    return problems if found == generation.digest else [*problems, f"its digest is {found[:12]}"]


def _expected(inventory: dict[str, str]) -> dict[str, str]:
    """Where the artifact's files lie in the materialised folder."""
    placed = {
        path.removeprefix(f"{MODEL}/"): digest for path, digest in inventory.items() if path.startswith(f"{MODEL}/")
    }
    beside = {path: digest for path, digest in inventory.items() if path.partition("/")[0] in PARTS}
    return placed | beside


def _signature(folder: Path) -> Signature:
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats)
