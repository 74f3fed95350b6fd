"""What other distributions bring: laws, by the entry points of the group ``ladder.laws``, and suites for gates."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from ladder.manifest.problems import Problem
from ladder.manifest.schema import Laws, Manifest

GROUP = "ladder.laws"
OWN_LAWS = frozenset(Laws.model_fields) | {"sources", "budget", "parent_unchanged", "taboo"}
"""Names that a law of somebody else cannot have."""


def installed_laws(name: str) -> list[EntryPoint]:
    """Every installed law of this name: one where all is well."""
    return list(entry_points(group=GROUP, name=name))


def suite_problems(manifest: Manifest) -> list[Problem]:
    """The harness where a gate needs it and it is not there."""
    if not manifest.gates.metrics or find_spec("lm_eval") is not None:
        return []
    message = "needs lm-evaluation-harness, which is not installed"
    return [Problem("gates.metrics.0.source", message, "pip install 'generation-ladder[suites]'")]


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
