"""Nothing moves: no family of a home evolves or changes its HEAD while somebody copies or removes what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ladder.registry import versions
from ladder.registry.head import head_lock
from ladder.registry.locks import family_lock
from ladder.registry.store import Store

_EVOLVE_LOCK = ".evolve.lock"


@contextmanager
def standstill(store: Store) -> Iterator[list[str]]:
    """Hold every family's evolve and head lock, and settle the moves of HEAD that a crash left; gives the families.

    Raises:
        Busy: some family evolves, or its HEAD moves; the message names the process.
    """
    with ExitStack() as held:
        for family in sorted({*versions.families(store), *_evolved_here(store.home)}):
            held.enter_context(family_lock(store.home, family, "evolve"))
            held.enter_context(head_lock(store, family))
        yield versions.families(store)


def _evolved_here(home: Path) -> set[str]:
    """Families that ever evolved in this home. One that trains its first generation is not in the store yet."""
    return {path.name.removesuffix(_EVOLVE_LOCK) for path in (home / "locks").glob(f"*{_EVOLVE_LOCK}")}
