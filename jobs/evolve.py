"""``python -m ladder.jobs.evolve --home HOME M...``: evolve as the entrypoint of a Ray Job, or on its own.

A Ray Job fails when its entrypoint exits with anything but 0. A rejected child is a verdict and no failure, so only
failed and unusable manifests end the job with an error; the verdicts are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ladder.report.terminal import exit_code, log_of, prepare, say_notes
from ladder.system.stopping import run, watch

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
    watch()
    return exit_code(lambda: _evolve(given.manifests, given.home), lambda: log_of(given.home))


def _evolve(manifests: list[Path], home: Path) -> int:
    # Here, so that a job is stopped in order while it imports them.
    from ladder.evolve import evolve
    from ladder.manifest import read_requests
    from ladder.report.console import Console, worst

    requests = read_requests(manifests)
    say_notes(note for request in requests for note in request.notes)
    outcomes = evolve(requests, home, Console())
    print(json.dumps([vars(outcome) for outcome in outcomes], indent=2))
    code = worst(outcomes)
    return 0 if code in VERDICTS else code


if __name__ == "__main__":
    prepare()
    sys.exit(run(main))
