"""The ``ladder`` command, as a script and as ``python -m ladder``. What stops it is imported before anything else."""

from __future__ import annotations

import sys

from ladder.report.terminal import prepare
from ladder.system.stopping import run


def main() -> int:
    """Entry point of the process."""
    prepare()
    return run(_command)


def _command() -> int:
    from ladder.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
