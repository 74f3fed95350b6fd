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
    waited = head is not None and head.tags.get(versions.VERDICT) == Verdict.PASSED
    finished = []
    for run in left:
        happened = _happened(store, family, run, head)
        if happened:
            if run.data.tags[_EVENT] == "promote" or (run.data.tags[_EVENT] == "foreign" and waited):
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
        found: the version that HEAD marks, or is to mark; None where the alias is gone.
        from_ref: the generation that HEAD was left at.
        to_ref: the generation that it marks, or what else it is.
        asked: MLflow's pages write aliases in small letters. There ``head`` was given to it, and HEAD has not moved.
        refused: why what was asked for is not done.
    """

    left: int | None
    found: int | None
    from_ref: str
    to_ref: str
    asked: bool = False
    refused: str = ""

    @property
    def told(self) -> str:
        """One sentence for people."""
        if not self.asked:
            return f"HEAD was moved outside of ladder, from {self.from_ref or _NOWHERE} to {self.to_ref}"
        why = f", and {self.refused}" if self.refused else ""
        return f"the alias head, as MLflow's pages write HEAD, asks for {self.to_ref} instead of {self.from_ref}{why}"

    @property
    def remedy(self) -> str:
        """What happens next."""
        if self.refused:
            return "take the alias head away, in MLflow's pages"
        return "the next command that writes puts it into the history"


def foreign(store: Store, family: str) -> Foreign | None:
    """Where HEAD is not where the history left it, or is asked for elsewhere; None where neither is, or where a move is
    just under way."""
    head, asked = versions.head_version(store, family), versions.asked_version(store, family)
    move = last_move(store, family)
    left, from_ref = (target_version(move) or None, move.data.tags[_TO]) if move else (None, "")
    if open_events(store, family):
        return None
    if asked is not None and (head is None or int(head.version) != int(asked.version)):
        return Foreign(left, int(asked.version), from_ref, _said(asked), True, _refusal(store, asked))
    found = int(head.version) if head else None
    return Foreign(left, found, from_ref, _said(head)) if found != left else None


def _said(version: ModelVersion | None) -> str:
    if version is None:
        return _NOWHERE
    if versions.is_generation(version):
        return versions.to_generation(version, is_head=False).ref
    return f"version {version.version}, which is no generation"


def _refusal(store: Store, version: ModelVersion) -> str:
    """Why HEAD does not go to a version that it is asked for; empty where it does."""
    if not versions.is_generation(version):
        return "only a generation becomes HEAD"
    generation = versions.to_generation(version, is_head=False)
    if generation.verdict not in (Verdict.PROMOTED, Verdict.PASSED):
        return f"it was {generation.verdict} by {', '.join(generation.failed_gates)}"
    given = len(approved_by(store, generation)) if generation.verdict is Verdict.PASSED else generation.approvals
    return f"it has {given} of {generation.approvals} approvals" if given < generation.approvals else ""


def open_foreign(store: Store, family: str, moved: Foreign) -> str:
    """Write down what somebody else did to HEAD and return the event's id. Call it under the family's head lock."""
    sequence, milliseconds = _next_place(store, family)
    fields = {
        _EVENT: "foreign",
        _SEQUENCE: f"{sequence:08d}",
        _FROM: moved.from_ref,
        _TO: moved.to_ref,
        _TO_VERSION: str(moved.found or 0),
        versions.REASON: "asked for in MLflow's pages"
        if moved.asked
        else "moved by somebody else, and found by ladder",
    }
    experiment = runs.ensure_experiment(store, experiment_name(family), opening(family))
    name = f"{sequence} foreign {moved.to_ref}"
    return str(store.client.create_run(experiment, start_time=milliseconds, run_name=name, tags=fields).info.run_id)


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
