"""Where every section and field of the schema lives, for messages about keys that stand in the wrong place."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

from ladder.manifest.fields import Section
from ladder.manifest.problems import FieldPath
from ladder.manifest.schema import Manifest


@cache
def sections() -> dict[tuple[str, ...], type[Section]]:
    """Every section by its path; the manifest itself is at ``()``."""
    return dict(_below((), Manifest))


def section_at(path: FieldPath) -> type[Section] | None:
    """The section that ``path`` leads to, or None where it leads to something else."""
    return sections().get(tuple(map(str, path)))


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that ``word`` was most likely meant to be."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    close = get_close_matches(word[:100].lower().replace("-", "_"), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def homes(key: str) -> list[str]:
    """The dotted paths of all fields called ``key``; a hyphen reads as an underscore."""
    name = key.replace("-", "_")
    return [".".join((*path, name)) for path, section in sections().items() if name in section.model_fields]


def _below(path: tuple[str, ...], section: type[Section]) -> list[tuple[tuple[str, ...], type[Section]]]:
    places = [(path, section)]
    for name, field in section.model_fields.items():
        for child in _sections_in(field.annotation):
            places += _below((*path, name), child)
    return places


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
