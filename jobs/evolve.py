"""``python -m ladder.jobs.evolve --home HOME M...``: evolve as the entrypoint of a Ray Job, or on its own.

Started again after it was killed, it goes on where it was, and trains nothing that was decided before.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.jobs.job import job
from ladder.report.terminal import prepare, say_notes
from ladder.system.stopping import run

if TYPE_CHECKING:
    from ladder.report.console import Outcome


def main(arguments: list[str] | None = None) -> int:
    """Run the manifests against the cluster that this job runs on; returns an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: the job was told to stop.
    """
    return job("evolve", "Evolve manifests inside a Ray Job.", _evolve, arguments, "manifests", Path)


def _evolve(given: Namespace) -> Sequence[Outcome]:
    # Here, so that a job is stopped in order while it imports them.
    from ladder.manifest import read_requests
    from ladder.report.console import Console
    from ladder.spine import evolve

    requests = read_requests(given.manifests)
    say_notes(note for request in requests for note in request.notes)
    return evolve(requests, given.home, Console())


if __name__ == "__main__":
    prepare()
    sys.exit(run(main))
