"""What a hook has not been told yet: read from what the registry holds, so that a crash loses no message.

The registry is the log, and each hook keeps only how far it was told. What MLflow recorded is told by whichever command
comes next, also where the one that did it was killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ladder.notify.hooks import Hook, state_file
from ladder.registry import Event, Generation, Registry
from ladder.system.files import save_text

_MOVES = {"promote": "promotion", "rollback": "rollback", "foreign": "foreign"}


@dataclass(frozen=True)
class Told:
    """How far a hook was told.

    Args:
        versions: by family, the last version whose verdict it knows; ``events`` the last event of the history.
        problem: why the last message did not arrive; empty where it did.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def read(cls, home: Path, name: str) -> Told:
        """What was kept; nothing was told where nothing is there."""
        path = state_file(home, name)
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else cls()

    @classmethod
    def everything(cls, registry: Registry) -> Told:
        """As if all that happened up to now had been told."""
        families = registry.families()
        versions = {name: max((one.version for one in registry.generations(name)), default=0) for name in families}
        return cls(versions, {name: max((one.seq for one in registry.history(name)), default=0) for name in families})

    def save(self, home: Path, name: str) -> None:
        save_text(state_file(home, name), json.dumps(asdict(self)))

    def knows(self, message: Message) -> bool:
        """Whether this message, or one behind it of its family, arrived."""
        known = self.versions if message.kind == "verdict" else self.events
        return message.number <= known.get(message.family, 0)

    def after(self, message: Message) -> Told:
        """With one more message that arrived."""
        if message.kind == "verdict":
            return Told({**self.versions, message.family: message.number}, self.events)
        return Told(self.versions, {**self.events, message.family: message.number})


@dataclass(frozen=True)
class Message:
    """One thing that happened, as it is sent.

    Args:
        id: the same each time that it is sent, so that who gets it twice can tell.
        kind: one of ``KINDS``, or ``test``.
        number: the version or the event of its family that it is about.
        time: when it happened, UTC.
        text: one sentence for people.
        data: what programs want to know.
    """

    id: str
    kind: str
    family: str
    number: int
    time: datetime
    text: str
    data: Mapping[str, Any]

    def body(self) -> bytes:
        """What is sent: JSON in UTF-8."""
        told = {"type": self.kind, "timestamp": self.time.isoformat(), "text": self.text}
        return json.dumps(told | {"data": {"family": self.family, **self.data}}).encode()


def untold(hook: Hook, told: Told, registry: Registry) -> list[Message]:
    """What a hook wants to know and has not been told, oldest first."""
    families = registry.families() if hook.family is None else [hook.family]
    found = [message for family in families for message in _happened(family, registry)]
    wanted = [message for message in found if message.kind in hook.on and not told.knows(message)]
    # A verdict comes before the promotion that it made.
    return sorted(wanted, key=lambda message: (message.time, message.kind != "verdict"))


def trial() -> Message:
    """A message that says nothing but that it arrives."""
    now = datetime.now(UTC)
    return Message(_id("test", now.isoformat()), "test", "", 0, now, "ladder can tell you what becomes of a family", {})


def _happened(family: str, registry: Registry) -> Iterator[Message]:
    generations = registry.generations(family)
    named = {one.ref: one for one in generations}
    yield from map(_verdict, generations)
    for event in registry.history(family):
        if event.kind in _MOVES:
            yield _move(family, event, named.get(event.to_ref))


def _verdict(one: Generation) -> Message:
    failed = ", ".join(one.failed_gates)
    waits = " and waits for its promotion" if one.verdict == "PASSED" else ""
    text = f"{one.ref} was rejected: {failed}" if failed else f"{one.ref} passed its gates{waits}"
    family, data = one.name.family, {"generation": one.to_dict()}
    return Message(
        _id("verdict", one.digest, one.created.isoformat()), "verdict", family, one.version, one.created, text, data
    )


def _move(family: str, event: Event, target: Generation | None) -> Message:
    """
    Args:
        target: where HEAD is; None where somebody else gave it to what is no generation, or took it away.
    """
    kind, moment = _MOVES[event.kind], event.time.isoformat()
    before = f", before it {event.from_ref}" if event.from_ref else ""
    text = f"HEAD of {family} is {event.to_ref}{before} ({kind}: {event.reason})"
    generation = target.to_dict() if target else None
    data = {"from": event.from_ref, "to": event.to_ref, "reason": event.reason, "generation": generation}
    return Message(_id(kind, family, str(event.seq), moment), kind, family, event.seq, event.time, text, data)


def _id(*parts: str) -> str:
    return f"msg_{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32]}"
