"""The append-only history of a family: one MLflow run per event, in the experiment ``<family> history``.

A move of HEAD is an event that is opened (RUNNING), then the alias is written, then the event is closed (FINISHED).
The alias is the commit point: an event that a crash left open is closed if HEAD is where it wanted to go, else it is
marked KILLED and counts as never happened.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from ladder.registry import redaction, runs, versions
from ladder.registry.entities import NO_MOVES, Event, Generation, Kind, Store, Verdict

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_EVENT = versions.PREFIX + "event"
_SEQUENCE = versions.PREFIX + "seq"
_FROM = versions.PREFIX + "from"
_TO = versions.PREFIX + "to"
_TO_VERSION = versions.PREFIX + "to_version"
_KEY = versions.PREFIX + "key"
# By time and not by number: sorting by a tag takes MLflow seconds where there are thousands of events.
_NEWEST_FIRST = ["attributes.start_time DESC"]


def read(store: Store, family: str) -> list[Event]:
    """All events that happened, oldest first."""
    finished = _runs(store, family, "FINISHED")
    return sorted((_to_event(run) for run in finished), key=lambda event: event.seq)


def last_move(store: Store, family: str) -> Run | None:
    """The event of the newest completed move of HEAD."""
    newest = _runs(store, family, "FINISHED", unequal=[(_EVENT, kind) for kind in NO_MOVES], limit=1)
    return newest[0] if newest else None


def target_version(event: Run) -> int:
    """The version that an event moved HEAD to."""
    return int(event.data.tags[_TO_VERSION])


def open_event(
    store: Store,
    kind: Kind,
    origin: Generation | None,
    target: Generation,
    reason: str,
    *,
    key: str = "",
    inventory: str = "",
) -> str:
    """Write down what is about to happen and return the event's id. Call it under the family's head lock.

    Args:
        key: who approves.
        inventory: of an erasure, the digest of the inventory that the generation will have.
    """
    family = target.name.family
    sequence, milliseconds = _next_place(store, family)
    fields = {
        _EVENT: kind,
        _SEQUENCE: f"{sequence:08d}",
        _FROM: origin.ref if origin else "",
        _TO: target.ref,
        _TO_VERSION: str(target.version),
        versions.REASON: reason,
        **({_KEY: key} if key else {}),
        **({versions.INVENTORY: inventory} if inventory else {}),
    }
    experiment = runs.ensure_experiment(store, experiment_name(family), opening(family))
    name = f"{sequence} {kind} {target.ref}"
    run = store.client.create_run(experiment, start_time=milliseconds, run_name=name, tags=fields)
    return str(run.info.run_id)


def close_event(store: Store, event_id: str) -> None:
    """Say that the event happened."""
    store.client.set_terminated(event_id, status="FINISHED")


def record_rejection(store: Store, generation: Generation) -> None:
    """Write the rejection down once. Call it under the family's head lock."""
    known = _runs(store, generation.name.family, equal=[(_EVENT, "reject"), (_TO, generation.ref)])
    if not known:
        reason = ", ".join(generation.failed_gates)
        close_event(store, open_event(store, "reject", None, generation, reason))


def approve(store: Store, generation: Generation, key: str, reason: str) -> None:
    """Write an approval down once a key. Call it under the family's head lock."""
    if key not in approved_by(store, generation):
        close_event(store, open_event(store, "approve", None, generation, reason, key=key))


def approved_by(store: Store, generation: Generation) -> set[str]:
    """The keys that approved this generation."""
    asked = [(_EVENT, "approve"), (_TO_VERSION, str(generation.version))]
    return {run.data.tags[_KEY] for run in _runs(store, generation.name.family, equal=asked)}


def open_events(store: Store, family: str) -> list[Run]:
    """Events that were begun and not closed."""
    return _runs(store, family, "RUNNING")


def settle(store: Store, family: str) -> list[Event]:
    """Finish or cancel what is open, and return what turned out to have happened. Call it under the head lock.

    A move of HEAD happened if HEAD is there. An erasure is put in place now: its files are staged before it is opened.
    Where they are gone it never happened; erasing again is the way on.
    """
    left = open_events(store, family)
    head = versions.head_version(store, family) if left else None
    finished = []
    for run in left:
        happened = _happened(store, family, run, head)
        if happened:
            if run.data.tags[_EVENT] == "promote":
                mark_promoted(store, family, target_version(run))
            finished.append(_to_event(run))
        store.client.set_terminated(run.info.run_id, status="FINISHED" if happened else "KILLED")
    return finished


def _happened(store: Store, family: str, run: Run, head: ModelVersion | None) -> bool:
    kind, version = run.data.tags[_EVENT], target_version(run)
    if kind == "erase":
        return redaction.put_in_place(store, family, version, run.data.tags[versions.INVENTORY])
    return kind in NO_MOVES or (int(head.version) if head else 0) == version


@dataclass(frozen=True)
class Foreign:
    """A move of HEAD that is in no history: by hand in MLflow's pages, or by another program.

    Args:
        left: the version that the last move in the history went to; None where HEAD was never moved.
        found: the version that HEAD marks; None where the alias is gone.
        to_ref: the generation that it marks, or what else it is.
    """

    left: int | None
    found: int | None
    from_ref: str
    to_ref: str

    @property
    def told(self) -> str:
        return f"HEAD was moved outside of ladder, from {self.from_ref or 'nowhere'} to {self.to_ref}"


def foreign(store: Store, family: str) -> Foreign | None:
    """Where HEAD is not where the history left it; None where it is, or where a move is just under way."""
    head, move = versions.head_version(store, family), last_move(store, family)
    found, left = int(head.version) if head else None, (target_version(move) or None) if move else None
    if found == left or open_events(store, family):
        return None
    if head is None:
        to_ref = _NOWHERE
    elif versions.is_generation(head):
        to_ref = versions.to_generation(head, is_head=True).ref
    else:
        to_ref = f"version {found}, which is no generation"
    return Foreign(left, found, move.data.tags[_TO] if move else "", to_ref)


def note_foreign(store: Store, family: str) -> None:
    """Write down a move of HEAD that somebody else made. Call it under the family's head lock, after ``settle``.

    A generation that waited is promoted by it, because the alias is what promotes. One that was rejected stays so.
    """
    if (moved := foreign(store, family)) is None:
        return
    sequence, milliseconds = _next_place(store, family)
    fields = {
        _EVENT: "foreign",
        _SEQUENCE: f"{sequence:08d}",
        _FROM: moved.from_ref,
        _TO: moved.to_ref,
        _TO_VERSION: str(moved.found or 0),
        versions.REASON: "found by ladder, moved by somebody else",
    }
    head = versions.head_version(store, family)
    if head is not None and head.tags.get(versions.VERDICT) == Verdict.PASSED:
        mark_promoted(store, family, int(head.version))
    experiment = runs.ensure_experiment(store, experiment_name(family), opening(family))
    name = f"{sequence} foreign {moved.to_ref}"
    run = store.client.create_run(experiment, start_time=milliseconds, run_name=name, tags=fields)
    close_event(store, str(run.info.run_id))


_NOWHERE = "nowhere"
"""What an event says of a HEAD that was taken away."""


def mark_promoted(store: Store, family: str, version: int) -> None:
    """Give a version, and the run that trained it, the verdict PROMOTED."""
    store.client.set_model_version_tag(family, str(version), versions.VERDICT, str(Verdict.PROMOTED))
    run_id = store.client.get_model_version(family, str(version)).run_id
    if run_id:
        store.client.set_tag(run_id, versions.VERDICT, str(Verdict.PROMOTED))


def experiment_name(family: str) -> str:
    """The experiment that holds a family's events."""
    return f"{family} history"


def opening(family: str) -> dict[str, str]:
    """Tags of that experiment."""
    what = "a run for each promotion, rollback, rejection, approval and erasure"
    return runs.KIND | {"mlflow.note.content": f"What happened to HEAD of [{family}](#/models/{family}): {what}."}


def _runs(
    store: Store,
    family: str,
    status: str | None = None,
    *,
    equal: Sequence[tuple[str, str]] = (),
    unequal: Sequence[tuple[str, str]] = (),
    limit: int | None = None,
) -> list[Run]:
    """A family's events, the newest first.

    Args:
        status: MLflow's, such as FINISHED.
        equal: tags and the values that they have.
        unequal: tags that are there, and values that they have not.
    """
    experiment = runs.find_experiment(store, experiment_name(family))
    if experiment is None:
        return []
    if store.direct:
        found = [
            run
            for run in store.direct.runs(experiment, status)
            if all(run.data.tags.get(key) == value for key, value in equal)
            and all(run.data.tags.get(key, value) != value for key, value in unequal)
        ]
        return found[:limit]
    clauses = [f"attributes.status = '{status}'"] if status else []
    clauses += [f"tags.`{key}` = '{value}'" for key, value in equal]
    clauses += [f"tags.`{key}` != '{value}'" for key, value in unequal]
    query: dict[str, Any] = {
        "experiment_ids": [experiment],
        "filter_string": " AND ".join(clauses),
        "order_by": _NEWEST_FIRST,
    }
    if limit:
        return list(store.client.search_runs(**query, max_results=limit))
    return list(versions.pages(store.client.search_runs, **query))


def _next_place(store: Store, family: str) -> tuple[int, int]:
    """Number and time (milliseconds of the epoch) of an event that is written now; both grow from event to event."""
    newest, now = _runs(store, family, unequal=[(_SEQUENCE, "")], limit=1), time.time_ns() // 1_000_000
    if not newest:
        return 1, now
    return int(newest[0].data.tags[_SEQUENCE]) + 1, max(now, newest[0].info.start_time + 1)


def _to_event(run: Run) -> Event:
    fields = run.data.tags
    return Event(
        seq=int(fields[_SEQUENCE]),
        time=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        kind=cast(Kind, fields[_EVENT]),
        from_ref=fields[_FROM] or None,
        to_ref=fields[_TO],
        reason=fields.get(versions.REASON, ""),
        key=fields.get(_KEY, ""),
    )
