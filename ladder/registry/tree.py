"""Who comes from whom, as an order in which a family can be drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ladder.registry.entities import Generation


def tree(generations: Sequence[Generation]) -> list[tuple[str, Generation]]:
    """Every generation under its parent, with what it is indented by.

    Of several children those with fewer descendants come first, indented; the last one goes on at its parent's depth.
    So a depth at least halves what is below it, and a family of thousands is a few levels deep.
    """
    children = children_of(generations)
    sizes = [1] * len(generations)
    for place in reversed(range(len(generations))):  # A parent stands before its children.
        sizes[place] += sum(sizes[child] for child in children[place])
    waiting, found = [(root, 0) for root in reversed(children[None])], []
    while waiting:
        place, depth = waiting.pop()
        found.append(("  " * depth + ("- " if depth else ""), generations[place]))
        below = sorted(children[place], key=lambda child: (sizes[child], generations[child].verdict == "PROMOTED"))
        waiting += [(child, depth + (child != below[-1])) for child in reversed(below)]
    return found


def children_of(generations: Sequence[Generation]) -> dict[int | None, list[int]]:
    """Where the children of each generation stand, by where it stands itself; those without a parent here under None.

    Two generations that learned nothing from each other have one digest, so a parent is known by its name as well.
    """
    children: dict[int | None, list[int]] = defaultdict(list)
    named: dict[tuple[str | None, str | None], int] = {}
    for place, generation in enumerate(generations):
        by_name, by_digest = (generation.parent_name, generation.parent), (None, generation.parent)
        children[named.get(by_name, named.get(by_digest))].append(place)
        named.setdefault((str(generation.name), generation.digest), place)
        named.setdefault((None, generation.digest), place)
    return children
