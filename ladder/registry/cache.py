"""Generations as plain folders on this machine, and removing what nobody needs any more."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ladder.errors import LadderError, RegistryError
from ladder.manifest import run_name
from ladder.registry import artifacts, head, locks, versions
from ladder.registry.entities import Generation, Store, Verdict
from ladder.system.files import save_folder

_BUILD_SECONDS = 1800.0
_HIDDEN_INVENTORY = f".{artifacts.FILE}"

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
        artifacts.require_weights(generation)
        folder = folder_of(self._store.home, generation)
        if self._is_sound(folder, generation):
            return folder
        with locks.family_lock(self._store.home, generation.name.family, "cache", timeout=_BUILD_SECONDS):
            if not self._is_sound(folder, generation):
                self._build(folder, generation)
        return folder

    def sidecars(self, generation: Generation) -> Path:
        """The folder with the generation's card, report, page, manifest and probes; a pruned one has it, too.

        Of what is materialised already these files alone are verified, so no weight is read for a text.

        Raises:
            RegistryError: the stored files are damaged or gone.
        """
        if not generation.pruned:
            folder = folder_of(self._store.home, generation)
            sound = folder in self._verified or _sidecars_are_sound(folder, generation)
            return (folder if sound else self.materialize(generation)) / artifacts.SIDECARS
        artifacts.require_sound(self._store, generation)
        return artifacts.local_folder(self._store, generation) / artifacts.SIDECARS

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
        artifacts.require_sound(self._store, generation)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left_behind)
        with artifacts.stored_folder(self._store, generation.model_id) as artifact:
            save_folder(folder, lambda target: _copy(artifact, target))
        if problems := _problems(folder, generation):
            raise RegistryError(
                f"the copy of {generation.ref} differs from the artifact: {problems[0]}",
                where=str(folder),
                remedy="check this disk, then repeat the command",
            )
        self._verified[folder] = _signature(folder)


def _copy(artifact: Path, target: Path) -> None:
    shutil.copytree(artifact / artifacts.MODEL, target, dirs_exist_ok=True)
    for part in artifacts.PARTS:
        if (artifact / part).is_dir():
            shutil.copytree(artifact / part, target / part)
    shutil.copy2(artifact / artifacts.FILE, target / _HIDDEN_INVENTORY)


def _problems(folder: Path, generation: Generation) -> list[str]:
    from ladder.models import folder_digest

    try:
        expected = _expected(artifacts.read_inventory(folder, generation.inventory, _HIDDEN_INVENTORY))
        problems = artifacts.differences(folder, expected, _HIDDEN_INVENTORY)
        found = folder_digest(folder)
    except LadderError as error:
        return [str(error)]
    return problems if found == generation.digest else [*problems, f"its digest is {found[:12]}"]


def _sidecars_are_sound(folder: Path, generation: Generation) -> bool:
    """Whether the sidecars of a materialised generation are there, and are what was recorded."""
    try:
        inventory = artifacts.read_inventory(folder, generation.inventory, _HIDDEN_INVENTORY)
    except LadderError:
        return False
    inside = f"{artifacts.SIDECARS}/"
    expected = {path.removeprefix(inside): digest for path, digest in inventory.items() if path.startswith(inside)}
    return artifacts.files_of(folder / artifacts.SIDECARS, "") == expected


def _expected(inventory: dict[str, str]) -> dict[str, str]:
    """Where the artifact's files lie in the materialised folder."""
    inside = f"{artifacts.MODEL}/"
    placed = {path.removeprefix(inside): digest for path, digest in inventory.items() if path.startswith(inside)}
    beside = {path: digest for path, digest in inventory.items() if path.partition("/")[0] in artifacts.PARTS}
    return placed | beside


def _signature(folder: Path) -> Signature:
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats)


CACHES = ("signals", "tokens", "answers", "suites", "pages")
"""Folders of ``home/cache`` that are filled again by whoever needs them."""


@dataclass(frozen=True)
class Removable:
    """A removable part of a home: its name, its folders, and their bytes."""

    name: str
    folders: tuple[Path, ...]
    size: int


def existing(named: Mapping[str, Sequence[Path]]) -> tuple[Removable, ...]:
    """What exists of some folders. A link is not followed and stays."""
    there = {
        name: tuple(folder for folder in folders if folder.is_dir() and not folder.is_symlink())
        for name, folders in named.items()
    }
    return tuple(Removable(name, folders, sum(map(_bytes, folders))) for name, folders in there.items() if folders)


def remove(removables: Iterable[Removable]) -> None:
    """Remove their folders."""
    for part in removables:
        for folder in part.folders:
            shutil.rmtree(folder)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Pruning:
    """What can go, or what went. Only parts that exist are named."""

    family: str
    weights: tuple[Removable, ...]
    """Of rejected generations, their materialised copies included."""
    runs: tuple[Removable, ...]
    """Folders of children that are decided."""
    caches: tuple[Removable, ...]
    """Of the whole home: what is built again when it is needed. Never HEAD's materialised folder."""

    @property
    def removables(self) -> tuple[Removable, ...]:
        return self.weights + self.runs + self.caches

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.removables)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; folders are paths, sizes bytes."""
        return asdict(self) | {"size": self.size}


def survey(store: Store, family: str, *, caches: bool = True) -> Pruning:
    """What ``prune`` would remove now.

    Raises:
        NotFound: the store knows no such family.
        RegistryError: the files of a rejected generation are gone, are not its own, or lie on a server.
    """
    versions.require_family(store, family)
    everyone = [each for known in versions.families(store) for each in versions.generations(store, known)]
    own = [each for each in everyone if each.name.family == family]
    weights = {each.ref: _weights(store, each) for each in prunable(own, everyone)}
    copies = {folder for folders in weights.values() for folder in folders}
    rebuilt = _caches(store.home, everyone, copies) if caches else {}
    return Pruning(family, existing(weights), existing(_runs(store.home, own)), existing(rebuilt))


def prune(store: Store, family: str, *, caches: bool = True) -> Pruning:
    """Remove what ``survey`` finds, while no family of the home evolves or moves its HEAD; returns what went.

    A generation is marked before its weights go, so that one that was cut off is pruned, and pruning again ends it.

    Raises:
        Busy: a family evolves; the caches are everybody's.
    """
    with head.all_locked(store):
        found = survey(store, family, caches=caches)
        going = {part.name for part in found.weights}
        for generation in versions.generations(store, family):
            if generation.ref in going and generation.pruned is None:
                _mark(store, generation)
        remove(found.removables)
    return found


def prunable(own: Iterable[Generation], everyone: Sequence[Generation]) -> list[Generation]:
    """Of a family's generations those that were rejected and that no kept one of any family descends from."""
    needed = needed_digests(everyone)
    return [each for each in own if each.verdict is Verdict.REJECTED and not each.is_head and each.digest not in needed]


def needed_digests(everyone: Sequence[Generation]) -> set[str]:
    """Digests of HEADs, of all that were not rejected, and of all their ancestors."""
    parents: dict[str, set[str]] = defaultdict(set)
    for each in everyone:
        parents[each.digest] |= {digest for digest in (each.parent, each.grandparent) if digest}
    needed: set[str] = set()
    found = {each.digest for each in everyone if each.is_head or each.verdict is not Verdict.REJECTED}
    while found:
        needed |= found
        found = {parent for digest in found for parent in parents.get(digest, ())} - needed
    return needed


def _weights(store: Store, generation: Generation) -> list[Path]:
    artifact = artifacts.local_folder(store, generation)
    # The database says where the artifact is. Only its inventory proves that these files are this generation's.
    artifacts.read_inventory(artifact, generation.inventory)
    return [*(artifact / part for part in artifacts.WEIGHTS), folder_of(store.home, generation)]


def _runs(home: Path, own: Sequence[Generation]) -> dict[str, list[Path]]:
    """The folders of the runs that ended with a verdict; one of a run that was cut off stays."""
    decided = {run_name(each.name, each.manifest_digest) for each in own if each.manifest_digest}
    return {name: [home / "runs" / name] for name in sorted(decided)}


def _caches(home: Path, everyone: Sequence[Generation], copies: set[Path]) -> dict[str, list[Path]]:
    heads = {folder_of(home, each) for each in everyone if each.is_head}
    materialised = set((home / "cache" / "generations").glob("*/*"))
    return {"generations": sorted(materialised - heads - copies)} | {name: [home / "cache" / name] for name in CACHES}


def _mark(store: Store, generation: Generation) -> None:
    now = datetime.now(UTC).isoformat()
    store.client.set_model_version_tag(generation.name.family, str(generation.version), versions.PRUNED, now)
