"""Removing what nobody needs any more: weights of rejected children, runs of decided ones, and caches.

What happened stays: versions, runs, history and the sidecars of every generation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ladder.manifest.names import run_name
from ladder.registry import tags, versions
from ladder.registry.artifacts import WEIGHTS, local_folder
from ladder.registry.cache import folder_of
from ladder.registry.generation import Generation, Verdict
from ladder.registry.inventory import read_inventory
from ladder.registry.parts import CACHES, Part, existing, remove
from ladder.registry.standstill import standstill
from ladder.registry.store import Store


@dataclass(frozen=True)
class Pruning:
    """What can go, or what went. Only parts that exist are named."""

    family: str
    weights: tuple[Part, ...]
    """Of rejected generations, their materialised copies included."""
    runs: tuple[Part, ...]
    """Folders of children that are decided."""
    caches: tuple[Part, ...]
    """Of the whole home: what is built again when it is needed. Never HEAD's materialised folder."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.weights + self.runs + self.caches

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

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
    with standstill(store):
        found = survey(store, family, caches=caches)
        going = {part.name for part in found.weights}
        for generation in versions.generations(store, family):
            if generation.ref in going and generation.pruned is None:
                _mark(store, generation)
        remove(found.parts)
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
    artifact = local_folder(store, generation)
    # The database says where the artifact is. Only its inventory proves that these files are this generation's.
    read_inventory(artifact, generation.inventory)
    return [*(artifact / part for part in WEIGHTS), folder_of(store.home, generation)]


def _runs(home: Path, own: Sequence[Generation]) -> dict[str, list[Path]]:
    """The folders that ``ladder.run.Run`` gave to children with a verdict; one of a run that was cut off stays."""
    decided = {run_name(each.name, each.manifest_digest) for each in own if each.manifest_digest}
    return {name: [home / "runs" / name] for name in sorted(decided)}


def _caches(home: Path, everyone: Sequence[Generation], copies: set[Path]) -> dict[str, list[Path]]:
    heads = {folder_of(home, each) for each in everyone if each.is_head}
    materialised = set((home / "cache" / "generations").glob("*/*"))
    return {"generations": sorted(materialised - heads - copies)} | {name: [home / "cache" / name] for name in CACHES}


def _mark(store: Store, generation: Generation) -> None:
    now = datetime.now(UTC).isoformat()
    store.client.set_model_version_tag(generation.name.family, str(generation.version), tags.PRUNED, now)
