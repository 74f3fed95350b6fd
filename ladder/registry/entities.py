"""What the registry is about: its store, what it holds (generations), is handed to record (candidates), writes down
(events) and finds wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ladder.errors import without_credentials
from ladder.manifest import Name

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ladder.registry.direct import Direct

DATABASE = "ladder.db"


@dataclass(frozen=True)
class Store:
    """An opened store.

    Args:
        connect: makes MLflow's client, which takes seconds, when it is asked for first.
        artifacts: None where a server decides where artifacts lie.
        direct: reads the same file without it; None where that is another database, or one of an unknown layout.
    """

    home: Path
    uri: str
    connect: Callable[[], MlflowClient]
    artifacts: Path | None
    direct: Direct | None = None

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own; whatever writes needs it."""
        return self.connect()

    @property
    def is_own(self) -> bool:
        """Whether it is the home's own sqlite file."""
        return self.uri == f"sqlite:///{self.home}/store/{DATABASE}"

    @property
    def address(self) -> str:
        """The URI for messages, without user name and password."""
        return without_credentials(self.uri)


class Verdict(StrEnum):
    """What became of a child."""

    PROMOTED = "PROMOTED"
    """It is HEAD or was HEAD."""
    REJECTED = "REJECTED"
    """At least one gate refused it; it is kept and never becomes HEAD."""
    PASSED = "PASSED"
    """It passed every gate and waits for promotion."""
    FAILED = "FAILED"
    """Its run did not finish."""


@dataclass(frozen=True)
class Generation:
    """One recorded attempt: immutable but for ``verdict`` (PASSED may become PROMOTED) and ``is_head``.

    ``digest``, ``parent`` and ``grandparent`` are content digests of model folders, SHA-256 in hex.
    """

    name: Name
    attempt: int
    """1 for the first child recorded under this name."""
    digest: str
    verdict: Verdict
    version: int
    """Version number of the family's registered model."""
    run_id: str
    model_id: str
    """MLflow's id of the logged model that holds the weights."""
    manifest_digest: str | None
    method: str
    parent: str | None
    parent_name: str | None
    grandparent: str | None
    grandparent_name: str | None
    failed_gates: tuple[str, ...]
    metrics: Mapping[str, float]
    created: datetime
    """UTC."""
    is_head: bool
    inventory: str = ""
    """SHA-256 of the list that holds the SHA-256 of every stored file."""
    base_digest: str | None = None
    """Of an adapter generation: the model that the adapter belongs on."""
    adapter_digest: str | None = None
    note: str = ""
    approvals: int = 0
    """Different keys that must approve before it becomes HEAD."""
    pruned: datetime | None = None
    """UTC; when its weights were removed. Only a rejected generation's are."""
    erased: datetime | None = None
    """UTC; when rows of a person were last erased from what it left behind."""

    @property
    def ref(self) -> str:
        """``Luna-G010``, or ``Luna-G010.2`` for a later attempt."""
        return str(self.name) if self.attempt == 1 else f"{self.name}.{self.attempt}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values. A metric that is no finite number becomes null, because JSON has no NaN."""
        metrics = {key: value if math.isfinite(value) else None for key, value in self.metrics.items()}
        plain = {"name": str(self.name), "created": self.created.isoformat(), "failed_gates": list(self.failed_gates)}
        later = {"pruned": self.pruned, "erased": self.erased}
        times = {name: time.isoformat() if time else None for name, time in later.items()}
        return {"ref": self.ref} | asdict(self) | plain | {"verdict": str(self.verdict), "metrics": metrics} | times


@dataclass(frozen=True)
class Candidate:
    """A decided child, as it lies in its run's folder.

    ``folder`` holds the Hugging Face files at its top level, sidecars in ``ladder/`` and an optional ``adapter/``.
    """

    name: Name
    folder: Path
    digest: str
    """``folder_digest(folder)``; recording refuses a folder that has another."""
    method: str
    manifest_digest: str | None = None
    passed: bool = True
    failed_gates: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    parent: Generation | None = None
    grandparent: Generation | None = None
    run_id: str | None = None
    """The run that trained it; without one, recording opens a run of its own (an import)."""
    base_digest: str | None = None
    adapter_digest: str | None = None
    note: str = ""
    approvals: int = 0
    """Different keys that must approve before it becomes HEAD."""

    @property
    def verdict(self) -> Verdict:
        """PASSED or REJECTED; only a promotion makes it PROMOTED."""
        return Verdict.PASSED if self.passed else Verdict.REJECTED


Kind = Literal["promote", "rollback", "reject", "approve", "erase", "foreign"]
NO_MOVES = ("reject", "approve", "erase")


@dataclass(frozen=True)
class Event:
    """Something that happened to a family's HEAD; a child that was refused it or approved for it; an erasure."""

    seq: int
    """Grows with time; numbers of moves that a crash undid are missing."""
    time: datetime
    """UTC, in milliseconds; later than that of the event before, also where the clock was set back."""
    kind: Kind
    from_ref: str | None
    """HEAD before; None where there was none, and of events that do not move it."""
    to_ref: str
    """HEAD after, or whom the event is about."""
    reason: str
    key: str = ""
    """Who approved."""

    @property
    def moves_head(self) -> bool:
        return self.kind not in NO_MOVES


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    ref: str
    """The generation, run or alias it concerns."""
    problem: str
