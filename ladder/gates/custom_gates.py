"""Gates that a user wrote: callables that other distributions declare as entry points of the group ``ladder.gates``.

Each is given the exam and what child and parent answered, and returns a ``GateResult``. It can reject a child, and
nothing else: it passes only with a result that says so plainly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from ladder.errors import GateError, ManifestError
from ladder.exam import Answers, Exam
from ladder.gates.verdict import GateResult
from ladder.manifest.installed import GATES, load

Gate = Callable[[Exam, Answers, Answers | None], GateResult]
"""Of the exam, the child's answers, and the parent's; None for a genesis."""


def custom_gate(name: str) -> Gate:
    """Load an installed gate.

    Raises:
        ManifestError: it is not installed once, cannot be loaded, or is nothing that can be called.
    """
    gate = load(GATES, name, "gates.custom")
    if not callable(gate):
        raise ManifestError(f"{name!r} is {gate!r:.80}, expected a callable", where=f"gates.custom {name}")
    found: Gate = gate
    return found


def evaluate_custom_gates(names: Sequence[str], exam: Exam, child: Answers, parent: Answers | None) -> list[GateResult]:
    """What each of these gates says, under its own name.

    Raises:
        ManifestError: as ``custom_gate``.
        GateError: a gate failed, or returned what is no result. Nothing is decided then.
    """
    return [_judged(name, custom_gate(name), exam, child, parent) for name in names]


def _judged(name: str, gate: Gate, exam: Exam, child: Answers, parent: Answers | None) -> GateResult:
    """Run somebody else's code on the answers; whatever it does wrong, the gate does not pass."""
    where = f"gates.custom {name}"
    try:
        result: Any = gate(exam, child, parent)
    except Exception as error:
        raise GateError(f"the gate failed: {error!r}", where=where, remedy="mend the gate") from error
    if not isinstance(result, GateResult) or not isinstance(result.passed, bool):
        raise GateError(f"returned {result!r:.80}, expected a GateResult", where=where, remedy="mend the gate")
    try:
        json.dumps(asdict(result), allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"returned what no report can hold, {error}: {result!r:.200}"
        raise GateError(message, where=where, remedy="mend the gate") from error
    return replace(result, name=name)
