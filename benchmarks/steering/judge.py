"""How a steered child is judged, in this order: whether it lives, whether the trait moved, what else moved, the cost.

A model that fell apart has a perfect ratio of anything to its coherence, so that is looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

ALIVE, GREEN = 0.85, 0.95
"""Coherence as a share of the base's: below the first a child is dead, from the second on it is whole."""
MOVED, COUNTED = 0.3, 0.05
"""Nats of the trait that count as moved, and below which a ratio means nothing."""
COST = 0.05
"""Of what else is known, that may be lost."""


def slope(coherence: float, trait: float) -> float | None:
    """100 x change of coherence / change of the trait in nats: what a nat costs. None where the trait hardly moved."""
    return None if abs(trait) < COUNTED else 100 * coherence / trait


def judged(found: Mapping[str, float]) -> str:
    """A word for a child, and why.

    Args:
        found: ``coherence`` as a share of the base's, and the changes of ``trait`` (wanted above 0), of ``off``, the
            largest of what was not meant, in its own unit, and of ``recall``, 0 to 1.
    """
    if not all(map(isfinite, found.values())) or found["coherence"] < ALIVE:
        return "dead"
    if found["trait"] < MOVED:
        return "not moved"
    if found["trait"] <= abs(found["off"]):
        return "beside the point"
    return "green" if found["coherence"] >= GREEN and found["recall"] >= -COST else "yellow"
