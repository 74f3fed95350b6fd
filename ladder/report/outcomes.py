"""What became of a call to ``evolve``, a line for each manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ladder.evolve import Outcome


def outcome_text(outcomes: Sequence[Outcome]) -> str:
    """One aligned line for each outcome, and a sentence where nothing was left to do."""
    lines = [f"{outcome.ref or outcome.child:<16} {outcome.verdict:<9} {outcome.detail}" for outcome in outcomes]
    if not any(outcome.trained for outcome in outcomes):
        lines.append("Nothing to do: every manifest was decided before. Nothing was trained.")
    return "\n".join(lines)
