"""Erasing the rows of one person from what a family's generations left behind.

What goes: their lines in replay samples, probes, dreams and files of the exam, what reports quote of them, and every
cache and run folder that may hold them. What stays: the weights, which learned from them, and a tombstone with each
generation that did, by digest only. Descendants refuse the rows from then on (``ladder.setup.dataset``).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ladder.data import ERASED, LEARNED, PAGE, REPORT, digest_lines, read_digests
from ladder.errors import DataError, ManifestError, RegistryError
from ladder.manifest import Name
from ladder.registry import artifacts, cache, head, history, locks, redaction, versions
from ladder.registry.entities import Generation, Store

TOMBSTONE = "erased.json"
"""One entry for each erasure: when, why, how many rows, whether they were learned, and what was taken out."""
_NOT_SEARCHED = {"manifest.json", "README.md", "gates.png", "training.png", "teachers.png", LEARNED, ERASED, TOMBSTONE}
"""What people wrote about a generation, pictures, and what is a digest already."""


_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Trail:
    """One generation's part in an erasure: which rows it learned, and where traces of them stand.

    Args:
        learned: how many of them it was trained on; None where that is not known, as of an imported generation.
        through: ancestors that were trained on them.
        removed: lines or strings to take out, by file.
        noted: it has the tombstone of these rows already.
    """

    ref: str
    learned: int | None
    through: tuple[str, ...]
    removed: Mapping[str, int]
    noted: bool

    @property
    def places(self) -> list[str]:
        """What is taken out of each file, for a reader; long digests in names are cut."""
        return [f"{_DIGEST.sub(lambda found: found[0][:12], name)} {count}" for name, count in self.removed.items()]

    @property
    def touched(self) -> bool:
        """Whether there is something to take out, or a tombstone to set."""
        return bool(self.removed) or (bool(self.learned or self.through) and not self.noted)


@dataclass(frozen=True)
class Erasure:
    """What would be erased, or what was."""

    family: str
    rows: int
    """Different rows of the person."""
    short: int
    """How many of these have too few words to be found in other texts."""
    trails: tuple[Trail, ...]
    """Of every generation of the family."""
    caches: tuple[cache.Removable, ...]
    """Of the whole home, runs of the family, and what was cut off: they may hold the rows, and nobody needs them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; folders are paths, sizes bytes."""
        return asdict(self)


@dataclass(frozen=True)
class _Finding:
    generation: Generation
    trail: Trail
    changes: Mapping[str, bytes | None]


def survey(store: Store, family: str, traces: redaction.Traces) -> Erasure:
    """What ``erase`` would take out now.

    Raises:
        NotFound: the store knows no such family.
        RegistryError: what a generation left behind is damaged, gone, or on a server.
    """
    versions.require_family(store, family)
    return _erasure(store, family, traces, _findings(store, family, traces))


def erase(store: Store, family: str, traces: redaction.Traces, reason: str) -> Erasure:
    """Take out what ``survey`` finds, while no family of the home evolves or moves its HEAD; returns what went.

    Each generation is changed at once or not at all, and has its event in the history. Erasing the same rows again
    finishes what was cut off.

    Raises:
        Busy: a family evolves or copies a generation; the caches are everybody's.
    """
    with head.all_locked(store) as families, _without_copying(store, families):
        versions.require_family(store, family)
        findings = _findings(store, family, traces)
        found = _erasure(store, family, traces, findings)
        cache.remove(found.caches)
        for finding in findings:
            if finding.trail.touched:
                _rewrite(store, finding, traces, reason)
    return found


@contextmanager
def _without_copying(store: Store, families: Sequence[str]) -> Iterator[None]:
    """Nobody materialises a generation meanwhile; afterwards nobody can in its former state."""
    with ExitStack() as held:
        for family in families:
            held.enter_context(locks.family_lock(store.home, family, "cache", timeout=head.LOCK_SECONDS))
        yield


def _erasure(store: Store, family: str, traces: redaction.Traces, findings: Sequence[_Finding]) -> Erasure:
    trails = tuple(finding.trail for finding in findings)
    known = [finding.generation for finding in findings]
    caches = _caches(store.home, family) | {"cut off": redaction.stale_files(store, family, known)}
    _refuse_links(caches)
    return Erasure(family, len(traces.digests), traces.short, trails, cache.existing(caches))


def _caches(home: Path, family: str) -> dict[str, list[Path]]:
    names = ("generations", *cache.CACHES, "staging")
    folders = {name: [home / "cache" / name] for name in names}
    # What an unexpected error said can be a row.
    return folders | {"logs": [home / "logs"], "runs": _runs(home, family)}


def _refuse_links(caches: Mapping[str, Sequence[Path]]) -> None:
    for folder in (folder for folders in caches.values() for folder in folders):
        if folder.is_symlink():
            raise RegistryError(
                "found a link, expected a folder: what links lead to is never removed",
                where=str(folder),
                remedy="empty what it leads to, remove the link, then erase again; nothing was erased",
            )


def _runs(home: Path, family: str) -> list[Path]:
    """The folders of the family's children, decided or cut off."""
    found = []
    for folder in sorted((home / "runs").glob("*")):
        with suppress(ManifestError):
            found += [folder] if Name.parse(folder.name).family == family else []
    return found


def _findings(store: Store, family: str, traces: redaction.Traces) -> list[_Finding]:
    known = versions.generations(store, family)
    folders = {each.ref: _sidecars(store, each) for each in known}
    learned = {ref: _learned(folder, traces) for ref, folder in folders.items()}
    return [_finding(each, folders[each.ref], traces, learned, known) for each in known]


def _finding(
    generation: Generation,
    folder: Path,
    traces: redaction.Traces,
    learned: Mapping[str, int | None],
    known: Sequence[Generation],
) -> _Finding:
    redacted = {name: _redacted(folder / name, name, traces) for name in _files(folder) if name not in _NOT_SEARCHED}
    changed = {name: (content, count) for name, (content, count) in redacted.items() if count}
    if REPORT in changed and PAGE in redacted:  # It quotes the same, and can be cut otherwise.
        changed[PAGE] = (None, 1)
    trail = Trail(
        generation.ref,
        learned[generation.ref],
        tuple(each.ref for each in _ancestors(generation, known) if learned[each.ref]),
        {name: count for name, (_, count) in changed.items()},
        traces.digests <= read_digests(folder / ERASED),
    )
    return _Finding(generation, trail, {name: content for name, (content, _) in changed.items()})


def _redacted(path: Path, name: str, traces: redaction.Traces) -> tuple[bytes | None, int]:
    try:
        return redaction.redact(name, path.read_bytes(), traces)
    except DataError as error:
        raise RegistryError(
            error.message,
            where=str(path),
            remedy="ladder writes no such file: restore it from a backup, then erase again; nothing was erased",
        ) from error


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sidecars(store: Store, generation: Generation) -> Path:
    artifact = artifacts.local_folder(store, generation)
    if problems := artifacts.sidecar_problems(artifact, generation.inventory):
        raise RegistryError(
            f"{generation.ref} is damaged: {problems[0]}",
            where=str(artifact),
            remedy="restore the files from a backup, then erase again; nothing was erased",
        )
    return artifact / artifacts.SIDECARS


def _learned(folder: Path, traces: redaction.Traces) -> int | None:
    path = folder / LEARNED
    return len(read_digests(path) & traces.digests) if path.is_file() else None


def _ancestors(generation: Generation, known: Sequence[Generation]) -> list[Generation]:
    """All that a generation descends from by parent or grandparent, in the family's order."""
    by_digest: dict[str | None, list[Generation]] = defaultdict(list)
    for each in known:
        by_digest[each.digest].append(each)
    found: dict[str, Generation] = {}
    waiting = [generation]
    while waiting:
        each = waiting.pop()
        new = [up for digest in (each.parent, each.grandparent) for up in by_digest[digest] if up.ref not in found]
        found |= {up.ref: up for up in new}
        waiting += new
    return [each for each in known if each.ref in found and each.ref != generation.ref]


def _rewrite(store: Store, finding: _Finding, traces: redaction.Traces, reason: str) -> None:
    generation, trail = finding.generation, finding.trail
    folder = artifacts.local_folder(store, generation) / artifacts.SIDECARS
    tombstone = json.dumps([*_tombstones(folder), _entry(trail, traces, reason)], indent=1, ensure_ascii=False)
    erased = digest_lines(read_digests(folder / ERASED) | traces.digests)
    inventory = redaction.stage(
        store, generation, {**finding.changes, TOMBSTONE: tombstone.encode(), ERASED: erased.encode()}
    )
    history.open_event(store, "erase", None, generation, _sentence(trail, reason), inventory=inventory)
    if not history.settle(store, generation.name.family):
        raise RegistryError(
            f"the new files of {generation.ref} were changed before they were put in place",
            where=str(folder.parent),
            remedy="see that nothing else writes there, then erase again: the generations after it still hold the rows",
        )


def _tombstones(folder: Path) -> list[dict[str, Any]]:
    path = folder / TOMBSTONE
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _entry(trail: Trail, traces: redaction.Traces, reason: str) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "rows": len(traces.digests),
        "learned": trail.learned,
        "through": trail.through,
        "removed": trail.removed,
    }


def _sentence(trail: Trail, reason: str) -> str:
    """The event's line: why, and what the generation had to do with the rows."""
    facts = [
        *([f"learned {trail.learned} of the rows"] if trail.learned else []),
        *([f"learned through {', '.join(trail.through)}"] if trail.through else []),
        *trail.places,
    ]
    return f"{reason} ({'; '.join(facts)})"
