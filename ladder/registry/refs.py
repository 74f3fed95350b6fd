"""From what a person types to one generation."""

from __future__ import annotations

from difflib import get_close_matches

from ladder.errors import NotFound, UsageError
from ladder.manifest.names import Name, Reference
from ladder.registry import versions
from ladder.registry.generation import Generation, Verdict
from ladder.registry.store import Store


def find(store: Store, reference: str | Reference) -> Generation:
    """HEAD, a name (its promoted attempt, else its latest), an attempt of a name, or the start of a digest.

    Raises:
        UsageError: the text names nothing, or a digest prefix fits several models.
        NotFound: nothing answers to it; the message names what comes nearest.
    """
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    if wanted.digest:
        return _by_digest(store, wanted.digest)
    family = wanted.family or ""
    if wanted.index is None:
        return _head(store, family)
    return _by_name(store, Name(family, wanted.index), wanted.attempt)


def best(attempts: list[Generation]) -> Generation:
    """Of several that fit: HEAD, else the promoted one, else the latest recorded."""
    return max(attempts, key=lambda each: (each.is_head, each.verdict is Verdict.PROMOTED, each.version))


def _head(store: Store, family: str) -> Generation:
    if found := versions.head(store, family):
        return found
    if versions.search(store, family):
        raise NotFound(
            f"{family} has no HEAD yet", remedy=f"promote a generation that passed: {_listing(store, family)}"
        )
    raise _no_family(store, family)


def _by_name(store: Store, name: Name, attempt: int | None) -> Generation:
    found = [
        each for each in versions.generations(store, name.family, name=str(name)) if attempt in (None, each.attempt)
    ]
    if found:
        return best(found)
    refs = [each.ref for each in versions.generations(store, name.family)]
    if not refs:
        raise _no_family(store, name.family)
    wanted = f"{name}.{attempt}" if attempt else str(name)
    near = get_close_matches(wanted, refs, n=3, cutoff=0.0)
    raise NotFound(f"no generation {wanted} is recorded", remedy=f"nearest are {', '.join(near)}")


def _by_digest(store: Store, prefix: str) -> Generation:
    found = [
        each
        for family in versions.families(store)
        for each in versions.generations(store, family)
        if each.digest.startswith(prefix)
    ]
    if not found:
        raise NotFound(f"no generation's digest starts with {prefix}", remedy="ladder lineage FAMILY lists them")
    if len({each.digest for each in found}) > 1:
        fits = ", ".join(f"{each.ref} {each.digest[: len(prefix) + 4]}" for each in found)
        raise UsageError(f"{prefix} is the start of several digests: {fits}", remedy="give more digits")
    return best(found)


def _no_family(store: Store, family: str) -> NotFound:
    known = versions.families(store)
    remedy = f"known are {', '.join(known)}" if known else "nothing is recorded yet: ladder evolve or ladder import"
    return NotFound(f"no family {family} in this store", where=store.address, remedy=remedy)


def _listing(store: Store, family: str) -> str:
    return ", ".join(each.ref for each in versions.generations(store, family)) or "none is recorded"
