"""Moving HEAD: under the family's lock, compared with what the caller saw, written down, and settled after a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from ladder.errors import HeadMoved, NotFound, RegistryError, UsageError
from ladder.registry import artifacts, glance, history, locks, runs, versions
from ladder.registry.entities import Generation, Store, Verdict


def finalize(store: Store, generation: Generation) -> None:
    """Finish the recording of a registered version. Safe to repeat; call it under the family's head lock."""
    artifacts.link_version(store, generation)
    artifacts.abandon_others(store, generation)
    if generation.verdict is Verdict.REJECTED:
        history.record_rejection(store, generation)
    runs.finish_run(store, generation)


def finalize_interrupted(store: Store, family: str) -> None:
    """Finish the recordings that a crash cut off after the version. Call it under the family's head lock."""
    still_open = {run.info.run_id for run in runs.runs_with_status(store, family, "RUNNING")}
    if still_open:
        for generation in versions.generations(store, family):
            if generation.run_id in still_open:
                finalize(store, generation)


LOCK_SECONDS = 60.0
"""Seconds to wait for whoever holds the lock: a move of HEAD takes moments. A backup or an erasure takes longer; then
``Busy`` names it."""
_KEY = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@contextmanager
def head_lock(store: Store, family: str) -> Iterator[list[history.Event]]:
    """Hold the family's head lock and settle what a crash left or somebody else moved; gives the moves that turned out
    to have happened. What MLflow's pages say of the family is written anew at the end."""
    with locks.family_lock(store.home, family, "head", timeout=LOCK_SECONDS):
        settled = history.settle(store, family)
        _meet_foreign(store, family)
        finalize_interrupted(store, family)
        yield settled
        glance.renew(store, family)


def _meet_foreign(store: Store, family: str) -> None:
    """Write down where somebody else moved HEAD, and move it where MLflow's pages ask for that. What is refused stays
    as it is, and is told by whoever looks. Call it under the family's head lock, after ``history.settle``.

    A generation that waited is promoted by it, because the alias is what promotes. One that was rejected stays so.
    """
    if (moved := history.foreign(store, family)) is not None and not moved.refused:
        version = versions.asked_version(store, family) if moved.asked else versions.head_version(store, family)
        if moved.asked and artifacts.problems_of(store, versions.to_generation(cast(Any, version), is_head=False)):
            return  # ``verify`` names them.
        event = history.open_foreign(store, family, moved)
        if moved.asked:
            store.client.set_registered_model_alias(family, versions.HEAD, str(moved.found))
        if version is not None and version.tags.get(versions.VERDICT) == Verdict.PASSED:
            history.mark_promoted(store, family, int(version.version))
        history.close_event(store, event)
    asked, current = versions.asked_version(store, family), versions.head_version(store, family)
    if asked is not None and current is not None and int(asked.version) == int(current.version):
        versions.forget_asked(store, family)


def settle(store: Store, family: str) -> None:
    """Finish the moves of HEAD and the recordings that a crash cut off; every command that writes does it first."""
    with head_lock(store, family):
        pass


def promote(
    store: Store, generation: Generation, *, expected: Generation | None, reason: str, key: str | None = None
) -> Generation:
    """Make a generation HEAD if HEAD is still ``expected`` (None: no HEAD yet). Repeating it changes nothing.

    One that needs approvals becomes HEAD with the last of the different keys; until then each is written down, and the
    generation stays PASSED.

    Args:
        key: who approves: letters, digits and ``._@-``; case plays no part.

    Raises:
        HeadMoved: HEAD is another generation.
        RegistryError: the generation was rejected, did not finish, was pruned, is damaged, or needs a key and none is
            given.
        UsageError: the key is no name.
    """
    key = _named(key)
    generation = versions.reread(store, generation)
    artifacts.require_weights(generation)
    if generation.verdict not in (Verdict.PASSED, Verdict.PROMOTED):
        gates = ", ".join(generation.failed_gates)
        raise RegistryError(
            f"{generation.ref} is {generation.verdict}" + (f" by {gates}" if gates else ""),
            remedy="only a generation that passed every gate becomes HEAD",
        )
    # Every byte is read here, before the lock: nobody else should wait for that. What may change meanwhile is HEAD, and
    # that is compared under the lock.
    artifacts.require_sound(store, generation)
    return _move(store, "promote", generation, expected, reason, key)


def rollback(store: Store, family: str, *, to: Generation | None, reason: str) -> Generation:
    """Move HEAD back to ``to``, or to the nearest promoted ancestor.

    A rollback without ``to`` that a crash cut off after HEAD had moved counts as done: repeating it goes no further.

    Raises:
        NotFound: there is no HEAD, or no promoted ancestor.
        RegistryError: ``to`` was never promoted, belongs to another family, or is damaged.
        HeadMoved: HEAD was moved by somebody else meanwhile.
    """
    with head_lock(store, family) as settled:
        head = _current(store, family) if to else versions.head(store, family)
    # The lock is free again while the target is looked for and proved; _move refuses if HEAD is not this one any more.
    if head is None and (to is None or versions.head_version(store, family) is None):
        versions.require_family(store, family)
        raise NotFound(f"{family} has no HEAD to roll back", remedy="promote a generation first")
    if to is not None:
        target = _checked(family, versions.reread(store, to))
    elif any(event.kind == "rollback" for event in settled):
        return cast(Generation, head)
    else:
        target = _promoted_ancestor(store, cast(Generation, head))
    artifacts.require_sound(store, target)
    return _move(store, "rollback", target, head, reason)


def _checked(family: str, target: Generation) -> Generation:
    if target.name.family != family:
        raise RegistryError(f"{target.ref} is no generation of {family}", remedy="HEAD stays within its family")
    if target.verdict is not Verdict.PROMOTED:
        raise RegistryError(
            f"{target.ref} is {target.verdict}, not PROMOTED",
            remedy="roll back to a generation that was HEAD before, or promote this one",
        )
    return target


def _promoted_ancestor(store: Store, head: Generation) -> Generation:
    family = versions.generations(store, head.name.family)
    # The name as well: two generations that learned nothing from each other have one digest.
    promoted_last = sorted(family, key=lambda each: each.verdict is Verdict.PROMOTED)
    known: dict[tuple[str | None, str | None], Generation] = {
        (each.digest, str(each.name)): each for each in promoted_last
    }
    ancestor = known.pop((head.parent, head.parent_name), None)
    while ancestor:
        if ancestor.verdict is Verdict.PROMOTED and ancestor.version != head.version:
            return ancestor
        ancestor = known.pop((ancestor.parent, ancestor.parent_name), None)
    others = [each.ref for each in family if each.verdict is Verdict.PROMOTED and each.version != head.version]
    remedy = "no other generation was ever promoted, so there is none to go to"
    raise NotFound(
        f"{head.ref} has no promoted ancestor in {head.name.family}",
        remedy=f"name the generation to go to: --to {' or --to '.join(others[-3:])}" if others else remedy,
    )


def _move(
    store: Store,
    kind: history.Kind,
    target: Generation,
    expected: Generation | None,
    reason: str,
    key: str | None = None,
) -> Generation:
    family = target.name.family
    with head_lock(store, family):
        current = _current(store, family)
        if current is None or current.version != target.version:
            _compare(family, current, expected)
            if kind == "rollback" or _approved(store, target, reason, key):
                _set_head(store, kind, current, target, reason)
    return versions.reread(store, target)


def _current(store: Store, family: str) -> Generation | None:
    """HEAD, None where there is none or somebody else put the alias on a version that is no generation."""
    version = versions.head_version(store, family)
    return versions.to_generation(version, is_head=True) if version and versions.is_generation(version) else None


def _named(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise UsageError(
            f"{key!r} is no name of a key", where="--key", remedy="use up to 64 letters, digits and ._@-, no spaces"
        )
    return key.lower() if key else None


def _approved(store: Store, generation: Generation, reason: str, key: str | None) -> bool:
    """Write the key's approval down, where there is a key, and tell whether there are enough."""
    if key is not None:
        history.approve(store, generation, key, reason)
    given = history.approved_by(store, generation)
    enough = len(given) >= generation.approvals
    if key is None and not enough:
        raise RegistryError(
            f"{generation.ref} has {len(given)} of the {generation.approvals} approvals that it needs",
            remedy=f"approve it with `ladder promote {generation.ref} --key NAME`",
        )
    return enough


def _compare(family: str, found: Generation | None, expected: Generation | None) -> None:
    # Versions, not digests: two generations can hold equal weights.
    if (found and found.version) != (expected and expected.version):
        raise HeadMoved(
            f"HEAD of {family} is {_describe(found)}, expected was {_describe(expected)}",
            where=f"{family}@HEAD",
            remedy="nothing was changed; look at the lineage and decide again",
        )


def _set_head(store: Store, kind: history.Kind, origin: Generation | None, target: Generation, reason: str) -> None:
    # The alias is the commit point: HEAD moves by it, at once. The event is open before and closed after it, so a crash
    # leaves an open event, and `history.settle` sees from the alias whether the move happened. The verdict comes
    # between, because an event that is closed promises it.
    family = target.name.family
    event = history.open_event(store, kind, origin, target, reason)
    store.client.set_registered_model_alias(family, versions.HEAD, str(target.version))
    if kind == "promote":
        history.mark_promoted(store, family, target.version)
    history.close_event(store, event)


def _describe(generation: Generation | None) -> str:
    return f"{generation.ref} ({generation.digest[:12]})" if generation else "not set"


_EVOLVE_LOCK = ".evolve.lock"


@contextmanager
def all_locked(store: Store) -> Iterator[list[str]]:
    """Hold every family's evolve and head lock, and settle the moves of HEAD that a crash left; gives the families.

    Raises:
        Busy: some family evolves, or its HEAD moves; the message names the process.
    """
    with ExitStack() as held:
        for family in sorted({*versions.families(store), *_evolved_here(store.home)}):
            held.enter_context(locks.family_lock(store.home, family, "evolve"))
            held.enter_context(head_lock(store, family))
        yield versions.families(store)


def _evolved_here(home: Path) -> set[str]:
    """Families that ever evolved in this home. One that trains its first generation is not in the store yet."""
    return {path.name.removesuffix(_EVOLVE_LOCK) for path in (home / "locks").glob(f"*{_EVOLVE_LOCK}")}
