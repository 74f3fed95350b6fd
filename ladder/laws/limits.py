"""Laws of request and training: pure checks that list what must never happen. One violation rejects a child.

Those of what the child says stand in ``ladder.laws.text``, and which of all are asked for in ``judge``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from ladder.laws.law import Violation
from ladder.manifest import Budget


def budget(limits: Budget, spent: Mapping[str, float | None]) -> list[Violation]:
    """What was spent beyond its limit. A limit on something that was not measured counts as broken.

    Args:
        spent: by the name of the limit, such as ``max_steps``.
    """
    asked = {name: limit for name, limit in limits if limit is not None}
    return [
        Violation("budget", f"spent {_figure(spent.get(name))}, allowed {_figure(limit)}", f"budget.{name}")
        for name, limit in asked.items()
        if not _within(spent.get(name), limit)
    ]


def cooldown(hours: float, last: datetime | None, begun: datetime) -> list[Violation]:
    """A training that begins too early after the family's last promotion.

    Args:
        hours: that must lie between them.
        last: the promotion, UTC; None where there was none yet.
    """
    allowed = last + timedelta(hours=hours) if last else begun
    if begun >= allowed:
        return []
    found = (
        f"the family's last promotion was {last:%Y-%m-%d %H:%M}, a child is allowed from {allowed:%Y-%m-%d %H:%M} UTC"
    )
    return [Violation("cooldown_hours", found, "laws.cooldown_hours")]


def sources(files: Sequence[Path], allowed: Sequence[Path]) -> list[Violation]:
    """Files that do not lie in an allowed folder once symbolic links are followed, and files that are not there."""
    folders = [folder.resolve() for folder in allowed]
    judged = [(file, _why_outside(file, folders)) for file in files]
    return [Violation("sources", why, str(file)) for file, why in judged if why is not None]


def parent_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> list[Violation]:
    """Frozen teachers whose digest after the run is not what it was before, or is not known on both sides."""
    return [
        Violation(
            "parent_unchanged",
            f"digest {before.get(name) or 'unknown'} before, {after.get(name) or 'unknown'} after",
            name,
        )
        for name in sorted(before.keys() | after.keys())
        if not before.get(name) or before.get(name) != after.get(name)
    ]


def _within(value: float | None, limit: float) -> bool:
    # NaN compares false, so it is never within a limit.
    return value is not None and 0 <= value <= limit


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "an unknown amount"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _why_outside(file: Path, folders: Sequence[Path]) -> str | None:
    """Why a file does not count as inside one of the resolved folders; None where it does."""
    try:
        real = file.resolve(strict=True)
    # A loop of links is a RuntimeError up to Python 3.12.
    except (OSError, RuntimeError) as error:
        return f"cannot be resolved: {error}"
    if any(real.is_relative_to(folder) for folder in folders):
        return None
    return f"lies at {real}, allowed are {', '.join(map(str, folders)) or 'no folders'}"
