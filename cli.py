"""The ``ladder`` command. Its verbs stand in ``ladder/commands``."""

from __future__ import annotations

from ladder.commands import concepts, data, look, notify, run, steer, store, why  # noqa: F401
from ladder.commands.answers import answer_errors
from ladder.commands.app import app
from ladder.commands.options import named_homes
from ladder.report.terminal import check_arguments, exit_code, log_of


def main() -> int:
    """Run the command line: every error becomes one message and an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: it was told to stop; ``ladder.system.stopping`` has the last word.
    """
    return exit_code(_run, lambda: log_of(named_homes[-1] if named_homes else None), answer_errors)


def _run() -> int:
    check_arguments()
    app()
    return 0
