"""What a pruning or an erasure removes and what an archive holds, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ladder.report.quantities import size_text

if TYPE_CHECKING:
    from ladder.registry.archive import Contents
    from ladder.registry.erase import Erasure, Trail
    from ladder.registry.parts import Part
    from ladder.registry.prune import Pruning


def pruning_text(found: Pruning, *, removed: bool) -> str:
    """Every part with its size under what it is, the sum, and how to go on."""
    if not found.parts:
        return f"{found.family}: nothing to prune"
    sections = {
        "weights of rejected generations": found.weights,
        "runs of decided children": found.runs,
        "caches of the whole home, built again when needed": found.caches,
    }
    total = size_text(found.size)
    last = f"removed {total}" if removed else f"{total} in all; nothing was removed: repeat it with --yes"
    return "\n".join([*(line for title, parts in sections.items() for line in _section(title, parts)), last])


def erasure_text(found: Erasure, *, removed: bool) -> str:
    """Who learned from the rows and where their traces are, generation by generation, and how to go on."""
    lines = [line for trail in found.trails for line in _trail(trail)]
    stays = "The weights keep what they learned; only training again without these rows forgets it."
    if not any(trail.touched for trail in found.trails) and not found.caches:
        return "\n".join([_sought(found), *lines, f"{found.family}: nothing to erase"])
    last = "Erased, and written down in the history." if removed else "Nothing was erased: repeat it with --yes."
    caches = _section("caches and runs that may hold them", found.caches)
    return "\n".join([_sought(found), *lines, *caches, stays, f"Backups from before still hold them. {last}"])


def _sought(found: Erasure) -> str:
    rows = f"{found.rows} {'row' if found.rows == 1 else 'rows'} of the person"
    return rows + (f", {found.short} of them too short to be found in other texts" if found.short else "")


def _trail(trail: Trail) -> list[str]:
    known = "what it learned is not known" if trail.learned is None else f"learned {trail.learned} of them"
    through = f", and through {', '.join(trail.through)}" if trail.through else ""
    places = [f"{'':<17}in {', '.join(trail.places)}"] if trail.places else []
    return [f"  {trail.ref:<14} {known}{through}", *places]


def contents_text(contents: Contents, done: str) -> str:
    """A line a family, and one of the whole."""
    families = [
        f"{each.family}: {each.generations} generations, HEAD {each.head or 'not set'}" for each in contents.families
    ]
    return "\n".join([*families, f"{done}: {len(contents.files)} files, {size_text(contents.size)}"])


def _section(title: str, parts: Sequence[Part]) -> list[str]:
    return [title, *(f"  {part.name:<30} {size_text(part.size):>10}" for part in parts)] if parts else []
