"""Laws that other distributions bring, by the entry points they declare in the group ``ladder.laws``."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import EntryPoint, entry_points

from ladder.manifest.problems import Problem
from ladder.manifest.schema import Laws, Manifest

GROUP = "ladder.laws"
OWN_LAWS = frozenset(Laws.model_fields) | {"sources", "budget", "parent_unchanged", "taboo"}
"""Names that a law of somebody else cannot have."""


def installed_laws(name: str) -> list[EntryPoint]:
    """Every installed law of this name: one where all is well."""
    return list(entry_points(group=GROUP, name=name))


def custom_law_problems(manifest: Manifest) -> list[Problem]:
    """Laws that the manifest names and that are not there, or not the only ones of their name."""
    problems = []
    for name, count in Counter(manifest.laws.custom).items():
        found = len(installed_laws(name))
        if name in OWN_LAWS:
            problems.append(Problem("laws.custom", f"{name!r} is a law of ladder's own", "give yours another name"))
        elif count > 1:
            problems.append(Problem("laws.custom", f"{name!r} is named {count} times", "name each law once"))
        elif found != 1:
            known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
            remedy = f"install the one package that declares it in the entry point group {GROUP}; installed: {known}"
            problems.append(Problem("laws.custom", f"{name!r} is installed {found} times, expected once", remedy))
    return problems
