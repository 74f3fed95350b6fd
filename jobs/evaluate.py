"""``python -m ladder.jobs.evaluate --home HOME REF...``: the gates of recorded generations once more, by the evaluator
of a cluster. Decides nothing and changes nothing in the registry.

A generation is examined as ``ladder gates`` does it, and its ``exit_code`` in the answer is the verb's: 3 where a gate
fails, which is a verdict and ends the job well.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladder.jobs.job import job, of_each
from ladder.report.terminal import prepare
from ladder.system.stopping import run

if TYPE_CHECKING:
    from ladder.report.console import Ended


@dataclass(frozen=True)
class Evaluated:
    """One generation.

    Args:
        child: its reference; ``against`` that of whom it was held against, None for a genesis.
        verdict: PASSED or REJECTED.
        detail: the gates that failed.
        gates: every gate with its figure; ``answers`` what was lost and gained, None without another generation.
    """

    child: str
    against: str | None
    verdict: str
    detail: str
    exit_code: int
    gates: dict[str, Any]
    answers: dict[str, Any] | None


def main(arguments: list[str] | None = None) -> int:
    """Examine generations on the cluster that this job runs on; returns an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: the job was told to stop.
    """
    against, probes = "held against this generation; its parent", "file, asked instead of its own and its ancestors'"
    told = "Examine generations again inside a Ray Job."
    return job("evaluate", told, _evaluate, arguments, "refs", str, against=against, probes=probes)


def _evaluate(given: Namespace) -> Sequence[Ended]:
    from ladder.actors.session import Session
    from ladder.manifest import Runtime
    from ladder.registry import open_registry
    from ladder.setup import EvaluatorHandle
    from ladder.verbs.compare import reevaluate

    registry = open_registry(given.home, create=False)
    chosen = {ref: registry.find(ref) for ref in given.refs}
    other = registry.find(given.against) if given.against else None
    probes = Path(given.probes) if given.probes else None
    with Session() as session:

        def evaluated(ref: str) -> Evaluated:
            # Where there is room: what its manifest says of devices is about the cluster that trained it.
            handle = EvaluatorHandle.start(Runtime(), session, given.home)
            found = reevaluate(registry, chosen[ref], other, probes, handle).to_dict()
            passed, failed = found["gates"]["passed"], found["gates"]["failed"]
            return Evaluated(
                child=found["child"],
                against=found["against"],
                verdict="PASSED" if passed else "REJECTED",
                detail="passed all gates" if passed else f"failed {', '.join(failed)}",
                exit_code=0 if passed else 3,
                gates=found["gates"],
                answers=found["answers"],
            )

        return of_each([(ref, partial(evaluated, ref)) for ref in chosen], given.home)


if __name__ == "__main__":
    prepare()
    sys.exit(run(main))
