"""``python -m ladder.jobs.evolve --home HOME M...``: evolve as the entrypoint of a Ray Job, or on its own.

A Ray Job fails when its entrypoint exits with anything but 0. A rejected child is a verdict and no failure, so only
failed and unusable manifests end the job with an error; the verdicts are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ladder.errors import Interrupted, LadderError
from ladder.evolve import evolve, worst
from ladder.manifest import read_requests
from ladder.report.console import Console
from ladder.stopping import run

VERDICTS = (0, 3, 4)
"""Exit codes that are verdicts."""


def main(arguments: list[str] | None = None) -> int:
    """Run the manifests against the cluster that this job runs on; returns an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: the job was told to stop.
    """
    parser = argparse.ArgumentParser(description="Evolve manifests inside a Ray Job.")
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        outcomes = evolve(read_requests(given.manifests), given.home, Console())
    except Interrupted:
        raise
    except LadderError as error:
        print(f"ladder: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps([vars(outcome) for outcome in outcomes], indent=2))
    code = worst(outcomes)
    return 0 if code in VERDICTS else code


if __name__ == "__main__":
    sys.exit(run(main))
