"""What a pruning removes and what an archive holds, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ladder.report.quantities import size_text

if TYPE_CHECKING:
    from ladder.registry.archive import Contents
    from ladder.registry.prune import Part, Pruning


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


def contents_text(contents: Contents, done: str) -> str:
    """A line a family, and one of the whole."""
    families = [
        f"{each.family}: {each.generations} generations, HEAD {each.head or 'not set'}" for each in contents.families
    ]
    return "\n".join([*families, f"{done}: {len(contents.files)} files, {size_text(contents.size)}"])


def _section(title: str, parts: Sequence[Part]) -> list[str]:
    return [title, *(f"  {part.name:<30} {size_text(part.size):>10}" for part in parts)] if parts else []
