"""What all jobs share: how they are called and stopped, and what their exit codes tell Ray.

A Ray Job fails when its entrypoint exits with anything but 0. A verdict, also a bad one, is no failure, so only failed
and unusable manifests end a job with an error; what became of each is printed as JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladder.report.terminal import exit_code, log_of
from ladder.system.stopping import watch

if TYPE_CHECKING:
    from ladder.report.console import Ended

VERDICTS = (0, 3, 4)
"""Exit codes that are verdicts."""


def job(
    name: str,
    description: str,
    work: Callable[[argparse.Namespace], Sequence[Ended]],
    arguments: Sequence[str] | None,
    operands: str,
    kind: Callable[[str], Any],
    **options: str,
) -> int:
    """Read the command line, do the work, print what became of each operand, and return the exit code.

    Args:
        name: the job's, as ``ladder submit --job`` has it.
        operands: name of what comes after the options, read by ``kind``; one or more.
        options: besides ``--home``, each with its help; text, or None when left out.

    Raises:
        Interrupted, KeyboardInterrupt: the job was told to stop.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(operands, nargs="+", type=kind)
    parser.add_argument("--home", type=Path, required=True)
    for option, told in options.items():
        parser.add_argument(f"--{option}", help=told)
    given = parser.parse_args(arguments)
    watch()
    return exit_code(lambda: _told(f"job {name}", work(given)), lambda: log_of(given.home))


def of_each(works: Iterable[tuple[str, Callable[[], Ended]]], home: Path) -> list[Ended]:
    """What became of each piece of work, by name; an error, foreseen or not, ends its own and nothing else.

    Raises:
        Interrupted: the job was told to stop.
    """
    from ladder.errors import Interrupted, LadderError
    from ladder.report.console import failure_of
    from ladder.report.terminal import unexpected_told

    outcomes: list[Ended] = []
    for name, work in works:
        try:
            with unexpected_told(log_of(home), where=name):
                outcomes.append(work())
        except Interrupted:
            raise
        except (LadderError, OSError) as error:
            outcomes.append(failure_of(name, error))
    return outcomes


def _told(verb: str, outcomes: Sequence[Ended]) -> int:
    from ladder.report.answer import print_answer
    from ladder.report.console import worst

    print_answer(sys.stdout, verb, {"outcomes": [vars(outcome) for outcome in outcomes]})
    code = worst(outcomes)
    return 0 if code in VERDICTS else code
