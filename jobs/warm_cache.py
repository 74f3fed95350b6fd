"""``python -m ladder.jobs.warm_cache --home HOME M...``: let the frozen teachers of manifests read now what their
trainings will ask them, and keep it in the home's cache of signals.

What is kept already is not read again, so a job that was cut off goes on where it was.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.jobs.job import job, of_each
from ladder.report.terminal import prepare, say_notes
from ladder.system.stopping import run

if TYPE_CHECKING:
    from ladder.report.console import Ended


def main(arguments: list[str] | None = None) -> int:
    """Warm the caches of manifests on the cluster that this job runs on; returns an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: the job was told to stop.
    """
    return job("warm-cache", "Let teachers read ahead inside a Ray Job.", _warm, arguments, "manifests", Path)


def _warm(given: Namespace) -> Sequence[Ended]:
    # Here, so that a job is stopped in order while it imports them.
    from ladder.actors.session import Session
    from ladder.manifest import read_requests
    from ladder.registry import open_registry
    from ladder.report.console import Console
    from ladder.run.warm import warm
    from ladder.setup import Context
    from ladder.system.process import bare_bytes

    requests = read_requests(given.manifests)
    say_notes(note for request in requests for note in request.notes)
    bare = bare_bytes()  # Before MLflow is loaded, which an actor does not load.
    registry = open_registry(given.home)
    with Session() as session:
        context = Context(given.home, registry, session, Console(), bare)
        return of_each([(str(one.child), partial(warm, one, context)) for one in requests], given.home)


if __name__ == "__main__":
    prepare()
    sys.exit(run(main))
