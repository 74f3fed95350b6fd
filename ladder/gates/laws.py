"""Laws: pure checks that list what must never happen. One violation rejects a child."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ladder.errors import GateError
from ladder.manifest.schema import Budget

_SHOWN = 80
"""Characters of a forbidden text that are quoted."""


@dataclass(frozen=True)
class Violation:
    """One broken law.

    Args:
        law: its name, such as ``forbidden_text``.
        found: what was found and what was allowed.
        where: the text, file, teacher or limit it concerns.
    """

    law: str
    found: str
    where: str


def forbidden_text(texts: Sequence[str], patterns: Sequence[str], where: str = "text") -> list[Violation]:
    """Every text in which a regular expression is found, at most once for each pattern.

    Patterns are searched as written: case counts unless the pattern begins with ``(?i)``. Texts are named by
    ``where`` and their number, from 1.

    Raises:
        GateError: a pattern is no regular expression.
    """
    compiled = [_compile(pattern) for pattern in patterns]
    return [
        Violation("forbidden_text", f"{match.group()[:_SHOWN]!r} matches {pattern.pattern!r}", f"{where} {number}")
        for number, text in enumerate(texts, 1)
        for pattern in compiled
        if (match := pattern.search(text))
    ]


def budget(limits: Budget, steps: int | None, tokens: int | None, minutes: float | None) -> list[Violation]:
    """What was spent beyond its limit. A limit on something that was not measured counts as broken."""
    spent = {
        "max_steps": (steps, limits.max_steps),
        "max_tokens": (tokens, limits.max_tokens),
        "max_minutes": (minutes, limits.max_minutes),
    }
    return [
        Violation("budget", f"spent {_figure(value)}, allowed {_figure(limit)}", f"budget.{name}")
        for name, (value, limit) in spent.items()
        if limit is not None and not _within(value, limit)
    ]


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


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise GateError(
            f"{pattern!r} is no regular expression: {error}",
            where="laws.forbidden_text",
            remedy="escape the characters that are meant literally",
        ) from error


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
