"""Laws of figures: one number about everything that the child says, held against its limit."""

from __future__ import annotations

from ladder.gates.law import Findings, Violation
from ladder.gates.standing import TOLERANCE


def at_most(law: str, value: float | None, limit: float, what: str) -> Findings:
    """Hold a figure against its limit. One that could not be measured (None) breaks the law.

    Args:
        what: the figure in words.
    """
    if value is None:
        return Findings(0, (Violation(law, f"{what} could not be measured", f"laws.{law}"),))
    found = f"{what} is {value:.4f}, at most {limit:g} allowed"
    broken = (Violation(law, found, f"laws.{law}"),) if value > limit + TOLERANCE else ()
    return Findings(1, broken, remark=found)


def rise(before: float | None, after: float | None) -> float | None:
    """By how much a figure rose; None where one of the two could not be measured."""
    return None if before is None or after is None else after - before
