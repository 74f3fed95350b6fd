"""Laws that a user wrote: callables that other distributions declare as entry points of the group ``ladder.laws``.

Each is given every text the child said, by the part of the exam, and returns violations. A violation names its text as
``text_laws.named`` does, so that sampled texts that break it can be counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ladder.errors import GateError, ManifestError
from ladder.laws.catalogue import Case, Law
from ladder.laws.law import Findings, Violation
from ladder.laws.text import Texts
from ladder.manifest.installed import LAWS, load, origin, plugin

Check = Callable[[Texts], list[Violation]]


def custom_law(name: str) -> Law:
    """Load an installed law. Its version is always 1; what tells two apart is the distribution among its parameters.

    Raises:
        ManifestError: it is not installed once, or cannot be loaded.
    """
    check = load(LAWS, name, "laws.custom")
    entry = plugin(LAWS, name, "laws.custom")
    if not callable(check):
        raise ManifestError(f"{entry.value} is {check!r}, expected a callable", where=f"laws.custom {name}")
    parameters = {"entry_point": entry.value, "distribution": origin(entry)}
    return Law(name, "text", 1, lambda case: parameters, partial(_examined, name, check))


def _examined(name: str, check: Check, case: Case) -> Findings:
    """Run somebody else's code on the texts; whatever it does wrong, the gate does not pass."""
    try:
        violations: Any = check(case.texts())
    except Exception as error:
        raise GateError(f"the law failed: {error!r}", where=f"laws.custom {name}", remedy="mend the law") from error
    if not isinstance(violations, list) or not all(isinstance(one, Violation) for one in violations):
        raise GateError(f"returned {violations!r:.80}, expected a list of Violation", where=f"laws.custom {name}")
    return case.found([Violation(name, one.found, one.where) for one in violations])
