"""The embedded ladder, whole: five ages climbed, one child refused, HEAD back and forward again. ``make demo`` runs it.

Run it twice: the second time nothing is trained and nothing is added to the history.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from ladder.manifest import read_requests
from ladder.report.console import Console, outcome_text, worst
from ladder.report.terminal import exit_code, log_of
from ladder.system.stopping import run

if TYPE_CHECKING:
    from ladder.registry import Registry

HERE = Path(__file__).parent
HOME = Path(".ladder")
FAMILY, FIRST, SECOND = "Luna", "Luna-G003", "Luna-G004"
EXPECTED = 3
"""Exit code of the climb: the worst verdict is that a gate rejected the forgetful child."""


def main() -> int:
    """Climb, show, and try the way back; returns 0 if the ladder ended as it should."""
    began, console = time.monotonic(), Console()
    console.phase("the embedded ladder: five ages of a small family, and a child that forgets; about 4 minutes")
    with console.working("loading libraries"):
        from ladder.registry import open_registry
        from ladder.report.lineage import history_text, lineage_text
        from ladder.spine import evolve
    outcomes = evolve(read_requests([HERE]), HOME, console)
    print(outcome_text(outcomes))
    print(f"climbed in {time.monotonic() - began:.0f} s\n")
    registry = open_registry(HOME)
    if any(outcome.trained for outcome in outcomes) and worst(outcomes) == EXPECTED:
        go_back_and_forth(registry)
    print(lineage_text(registry.generations(FAMILY), get_terminal_size().columns) + "\n")
    print(history_text(registry.history(FAMILY)) + "\n")
    print(f"`ladder ui` shows all this in the MLflow UI; `ladder sample {FAMILY}@HEAD 'Q: ...'` talks to HEAD.")
    print(f"whole demo: {time.monotonic() - began:.0f} s")
    head = registry.head(FAMILY)
    return 0 if worst(outcomes) == EXPECTED and head is not None and head.ref == SECOND else 1


def go_back_and_forth(registry: Registry) -> None:
    """Roll back to the first distillation's child, and promote the second one's again."""
    back = registry.rollback(FAMILY, to=registry.find(FIRST), reason="demo: the way back")
    print(f"rolled back: HEAD is {back.ref}")
    again = registry.promote(registry.find(SECOND), expected=back, reason="demo: the way forward again")
    print(f"promoted again: HEAD is {again.ref}\n")


if __name__ == "__main__":
    sys.exit(run(lambda: exit_code(main, lambda: log_of(HOME))))
