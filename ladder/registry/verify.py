"""Everything stored about a family, compared with what was recorded. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ladder.errors import RegistryError
from ladder.registry import artifacts, history, locks, runs, versions
from ladder.registry.entities import Finding, Generation, Store, Verdict
from ladder.registry.store import is_inside

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def verify(store: Store, family: str) -> list[Finding]:
    """Check files, digests, ancestry, HEAD, history and runs; an empty list means that all is well.

    Raises:
        NotFound: the store knows no such family.
    """
    versions.require_family(store, family)
    stored = sorted(versions.search(store, family), key=lambda version: int(version.version))
    known, findings = _readable(stored, versions.head_version(store, family))
    checks: list[Callable[[Store, str, list[Generation]], Iterator[Finding]]] = [
        _places, _files, _ancestry, _duplicates, _head, _interrupted,
    ]  # fmt: skip
    return findings + [finding for check in checks for finding in check(store, family, known)]


def _readable(stored: list[ModelVersion], head: ModelVersion | None) -> tuple[list[Generation], list[Finding]]:
    known, findings = [], []
    for version in stored:
        where = f"{version.name} version {version.version}"
        if not versions.is_generation(version):
            findings.append(Finding(where, "was not recorded by ladder"))
            continue
        try:
            is_head = head is not None and head.version == version.version
            known.append(versions.to_generation(version, is_head=is_head))
        except RegistryError as error:
            findings.append(Finding(where, error.message))
    return sorted(known, key=lambda each: (each.name, each.attempt)), findings


def _places(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    """In the home's own store, where whatever is stored next would lie."""
    if store.artifacts is None or not store.is_own:
        return
    for name in (family, history.experiment_name(family)):
        experiment = runs.experiment_of(store, name)
        if experiment is not None and not is_inside(experiment.artifact_location, store.artifacts):
            yield Finding(f"experiment {name}", f"leads out of the home, to {experiment.artifact_location}")


def _files(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    for generation in known:
        for problem in artifacts.problems_of(store, generation):
            yield Finding(generation.ref, problem)


def _ancestry(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    digests = {(str(each.name), each.digest) for each in known}
    for each in known:
        lineage = (("parent", each.parent_name, each.parent), ("grandparent", each.grandparent_name, each.grandparent))
        for role, name, digest in lineage:
            if name and name.startswith(f"{family}-G") and (name, digest) not in digests:
                yield Finding(each.ref, f"its {role} {name} ({digest and digest[:12]}) is not recorded")


def _duplicates(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    counts = Counter((str(each.name), each.manifest_digest, each.digest) for each in known)
    attempts = Counter(each.ref for each in known)
    for (name, _, digest), count in counts.items():
        if count > 1:
            yield Finding(name, f"the same child ({digest[:12]}) is recorded {count} times")
    for ref, count in attempts.items():
        if count > 1:
            yield Finding(ref, f"{count} versions are this attempt")


def _head(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    head = versions.head_version(store, family)
    if head is not None and head.tags.get(versions.VERDICT) != Verdict.PROMOTED:
        yield Finding(f"{family}@HEAD", f"marks version {head.version}, which is {head.tags.get(versions.VERDICT)}")
    if moved := history.foreign(store, family):
        at = int(head.version) if head else None
        what = (
            f"marks version {at}, but the last move in its history went to {moved.left}: " if at != moved.left else ""
        )
        yield Finding(f"{family}@HEAD", what + moved.told)


def _interrupted(store: Store, family: str, known: list[Generation]) -> Iterator[Finding]:
    if not locks.is_held(store.home, family, "head"):
        for event in history.open_events(store, family):
            yield Finding(event.info.run_name, "was cut off; the next promote, rollback or evolve settles it")
    if not locks.is_held(store.home, family, "evolve"):
        for run in runs.runs_with_status(store, family, "RUNNING"):
            yield Finding(run.info.run_name, f"run {run.info.run_id} was cut off; the same command resumes it")
    recorded = {each.run_id for each in known}
    ended = [run for status in ("FINISHED", "FAILED") for run in runs.runs_with_status(store, family, status)]
    for run in ended:
        failed = run.data.tags.get(versions.VERDICT, str(Verdict.FAILED)) == Verdict.FAILED
        if run.info.run_id not in recorded and not (run.info.status == "FAILED" and failed):
            yield Finding(run.info.run_name, f"run {run.info.run_id} finished, but no version of it is recorded")
