"""What follows a registered version: its pages are linked, a rejection is written down, and its run ends.

The run ends last. So a version whose run is still open is one whose recording was cut off.
"""

from __future__ import annotations

from ladder.registry import artifacts, history, runs, versions
from ladder.registry.generation import Generation, Verdict
from ladder.registry.store import Store


def conclude(store: Store, generation: Generation) -> None:
    """Finish the recording of a registered version. Safe to repeat; call it under the family's head lock."""
    artifacts.link_version(store, generation)
    artifacts.abandon_others(store, generation)
    if generation.verdict is Verdict.REJECTED:
        history.record_rejection(store, generation)
    runs.finish_run(store, generation.run_id, generation.verdict)


def conclude_interrupted(store: Store, family: str) -> None:
    """Finish the recordings that a crash cut off after the version. Call it under the family's head lock."""
    still_open = {run.info.run_id for run in runs.runs_with_status(store, family, "RUNNING")}
    if still_open:
        for generation in versions.generations(store, family):
            if generation.run_id in still_open:
                conclude(store, generation)
