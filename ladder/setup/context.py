"""What all manifests of a call share, one manifest on its way with its folder, and what its training took.

The folder is the journal: each phase ends by putting one durable file in place, so what is there says where to go on,
and the same command does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ladder.actors.placement import Traffic, threads
from ladder.actors.session import Session
from ladder.data import REPORT
from ladder.manifest import FIRST_OTHER, OtherTeacher, Request, Runtime, others, run_name
from ladder.methods import method_of
from ladder.registry import Registry, lineage
from ladder.report.console import Console
from ladder.report.terminal import RUN_LOG
from ladder.report.text import size_text
from ladder.setup.dataset import chosen_day
from ladder.setup.rehearsal import PARENT, RehearsalPlan, rehearsal_of
from ladder.system.files import save_text
from ladder.system.process import ProcessMemory
from ladder.teachers import CacheStatistics
from ladder.train.checkpoint import KEPT, latest_step
from ladder.train.spec import StepReport


@dataclass(frozen=True)
class Usage:
    """Sums over the steps of a run, each counted once, also where the run was cut off and went on.

    Args:
        wire_bytes: what the student received from its teachers.
        cache_bytes: signals that were stored anew.
        hits, misses: examples that a teacher found in its cache, and that it had to read.
        step_seconds: in the student's steps.
        waited_seconds: in which the student waited between two steps.
        memory_bytes: the largest resident set of each process, by the roles that it hosted (``student``,
            ``teacher1+teacher2``).
        gpu_bytes: the same on the GPU, for processes that use one.
        nodes: where the actors stand on several nodes, by the name of each: ``sent_bytes`` and ``received_bytes`` of
            signals, and ``waited_seconds`` summed over its ranks of the student.
    """

    steps: int = 0
    wire_bytes: int = 0
    cache_bytes: int = 0
    hits: int = 0
    misses: int = 0
    step_seconds: float = 0.0
    waited_seconds: float = 0.0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    gpu_bytes: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> Usage:
        """What a run noted under ``usage``; nothing before its first checkpoint."""
        return cls(**notes.get("usage", {}))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def after(self, report: StepReport) -> Usage:
        """With one more step."""
        return replace(
            self,
            steps=self.steps + 1,
            wire_bytes=self.wire_bytes + report.wire_bytes,
            step_seconds=self.step_seconds + report.seconds,
            waited_seconds=self.waited_seconds + report.waited,
        )

    def surveyed(
        self, cache: Iterable[CacheStatistics], memory: Mapping[str, ProcessMemory], traffic: Iterable[Traffic] = ()
    ) -> Usage:
        """With what the actors of a session say at its end; the peaks are the larger ones."""
        counts = list(cache)
        by_roles = shared_by_role(memory)
        return replace(
            self,
            cache_bytes=self.cache_bytes + sum(count.stored_bytes for count in counts),
            hits=self.hits + sum(count.hits for count in counts),
            misses=self.misses + sum(count.misses for count in counts),
            memory_bytes=_largest(self.memory_bytes, {roles: one.peak_bytes for roles, one in by_roles.items()}),
            gpu_bytes=_largest(
                self.gpu_bytes, {roles: one.gpu_bytes for roles, one in by_roles.items() if one.gpu_bytes}
            ),
            nodes=_by_node(self.nodes, list(traffic)),
        )

    @property
    def waiting(self) -> float:
        """Share of the student's time in which it waited, 0 to 1."""
        return self.waited_seconds / max(1e-9, self.step_seconds + self.waited_seconds)

    def metrics(self) -> dict[str, float]:
        """Totals as metrics of the MLflow run; sizes in bytes, times in seconds."""
        looked_up = self.hits + self.misses
        return {
            "perf/total_wire_bytes": self.wire_bytes,
            "perf/total_cache_bytes": self.cache_bytes,
            **({"perf/cache_hit_share": self.hits / looked_up} if looked_up else {}),
            "perf/total_step_seconds": self.step_seconds,
            "perf/total_waited_seconds": self.waited_seconds,
            "perf/peak_memory_bytes": sum(self.memory_bytes.values()),
            **{f"perf/peak_memory_bytes/{metric_path(role)}": size for role, size in self.memory_bytes.items()},
            **{f"perf/peak_gpu_bytes/{metric_path(role)}": size for role, size in self.gpu_bytes.items()},
            **{
                f"perf/node_{what}/{metric_path(node)}": much
                for node, told in self.nodes.items()
                for what, much in told.items()
            },
        }

    def line(self) -> str:
        """All of it in one line."""
        looked_up = self.hits + self.misses
        hits = f" (hits {self.hits / looked_up:.0%})" if looked_up else ""
        sizes = [f"{roles} {size_text(size)}" for roles, size in self.memory_bytes.items()]
        gpu = [f"{roles} {size_text(size)} on its GPU" for roles, size in self.gpu_bytes.items()]
        return (
            f"wire {size_text(self.wire_bytes)}, cache {size_text(self.cache_bytes)}{hits}, "
            f"peak memory {size_text(sum(self.memory_bytes.values()))}: {', '.join([*sizes, *gpu])}, "
            f"{self.step_seconds / max(1, self.steps):.3f} s a step, waited {self.waiting:.0%}"
            f"{''.join(f'; {node} {_told(told)}' for node, told in self.nodes.items())}"
        )

    def told(self) -> list[tuple[str, str]]:
        """All of it by name, in words."""
        looked_up = self.hits + self.misses
        hits = f"; {self.hits / looked_up:.0%} were found again" if looked_up else ""
        peaks = {"memory": self.memory_bytes, "GPU memory": self.gpu_bytes}
        found = [
            ("seconds a step", f"{self.step_seconds / max(1, self.steps):.3f}"),
            ("waited for teachers", f"{self.waiting:.0%} of the time"),
            ("signals received", size_text(self.wire_bytes)),
            ("signals stored", size_text(self.cache_bytes) + hits),
            *(
                (f"peak {what}, {who.replace('+', ', ')}", size_text(size))
                for what, of in peaks.items()
                for who, size in of.items()
            ),
            *((f"node {node}", _told(told)) for node, told in self.nodes.items()),
        ]
        return found if self.steps else []


def shared_by_role(memory: Mapping[str, ProcessMemory]) -> dict[str, ProcessMemory]:
    """Processes by the roles that they host, ``student`` or ``student+teacher1``: each process once."""
    roles: dict[tuple[str, int], list[str]] = {}
    for role, process in memory.items():
        roles.setdefault(process.identity, []).append(role)
    latest = {process.identity: process for process in memory.values()}
    return {"+".join(hosted): latest[identity] for identity, hosted in roles.items()}


def _largest(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {roles: max(before.get(roles, 0), now.get(roles, 0)) for roles in {**before, **now}}


def _by_node(before: Mapping[str, Mapping[str, float]], traffic: Sequence[Traffic]) -> dict[str, dict[str, float]]:
    """Sums by node; nothing where there is only one."""
    if not before and len({one.node for one in traffic}) <= 1:
        return {}
    sums = {node: dict(told) for node, told in before.items()}
    for one in traffic:
        here = sums.setdefault(one.node, {"sent_bytes": 0, "received_bytes": 0, "waited_seconds": 0.0})
        here["sent_bytes"] += one.sent
        here["received_bytes"] += one.received
        here["waited_seconds"] += one.waited
    return sums


def _told(traffic: Mapping[str, float]) -> str:
    """What went through a node, in words."""
    sent, received = (size_text(int(traffic[f"{way}_bytes"])) for way in ("sent", "received"))
    return f"sent {sent}, received {received}, waited {traffic['waited_seconds']:.1f} s"


def metric_path(name: str) -> str:
    """A name as part of a metric's: MLflow allows no plus sign there, few other signs, and 250 characters in all."""
    return re.sub(r"[^\w.-]", "_", name.replace("+", "_and_"))[-200:]


@dataclass(frozen=True)
class Context:
    """What all manifests of one call share.

    Args:
        bare: bytes of an actor that has loaded its libraries and no model, for the price of a run.
        coming: roles of the teachers that later manifests of the call will ask for, as far as that is known before.
    """

    home: Path
    registry: Registry
    session: Session
    console: Console
    bare: int = 0
    coming: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Run:
    """One manifest, its ancestors, and its folder ``home/runs/<child>/<manifest digest>/``.

    Args:
        folders: the Hugging Face folder of each ancestor, by digest.
        rehearsal: what it rehearses of what fades; as it was noted, where the run began before.
    """

    request: Request
    ancestry: lineage.Ancestry
    folders: dict[str, Path]
    folder: Path
    rehearsal: RehearsalPlan = field(default_factory=RehearsalPlan)

    @classmethod
    def open(cls, request: Request, ancestry: lineage.Ancestry, registry: Registry | None, home: Path) -> Run:
        """Find or begin the run of this manifest. Nothing is written but copies of its ancestors, into the cache."""
        known = {one.digest: one for one in (*ancestry.ancestors, *ancestry.teachers.values())}
        folders = {digest: registry.materialize(one) for digest, one in known.items()} if registry else {}
        line = {one.ref: one for one in ancestry.ancestors}
        noted = notes_of(folder := run_folder(request, home)).get("rehearsal")
        if noted:
            plan = RehearsalPlan.from_dict(noted)
        else:
            named = {one.ref: number for number, one in ancestry.teachers.items() if number != PARENT}
            plan = rehearsal_of(request.manifest, {ref: folders[one.digest] for ref, one in line.items()}, named)
        older = {number: line[ref] for number, ref in plan.older.items() if number >= FIRST_OTHER and ref in line}
        return cls(request, replace(ancestry, others={**ancestry.others, **older}), folders, folder, plan)

    @property
    def teachers(self) -> dict[int, Path]:
        """Folders of the teachers there are that are models, by number."""
        own = {number: self.folders[teacher.digest] for number, teacher in self.ancestry.teachers.items()}
        if 1 in own and method_of(self.request.manifest).critic_is_parent:
            own[2] = own[1]
        listed = others(self.request.manifest)
        return own | {number: self.request.folder(one.path) for number, one in listed.items() if one.path is not None}

    @property
    def made(self) -> dict[int, OtherTeacher]:
        """Those that are no models: they have no folder, and are always there."""
        listed = others(self.request.manifest)
        return {n: one for n, one in listed.items() if one.path is None and one.generation is None}

    @property
    def ancestors(self) -> dict[str, Path]:
        """Folders of all ancestors by name, oldest first."""
        return {known.ref: self.folders[known.digest] for known in self.ancestry.ancestors}

    @property
    def start(self) -> Path:
        """The folder that the student starts as, where it is not the parent's own."""
        return self.folder / "start"

    @property
    def dreams(self) -> Path:
        """All dreams, written before the first step."""
        return self.folder / "dreams.jsonl"

    @property
    def written(self) -> Path:
        """Folder of what the student wrote, a file a round, each before the first step that reads it."""
        return self.folder / "written"

    @property
    def candidate(self) -> Path:
        """The trained child, whole or absent."""
        return self.folder / "candidate"

    @property
    def report(self) -> Path:
        """The gate report, the last thing to be written beside the candidate."""
        return self.candidate / "ladder" / REPORT

    def reached(self) -> int:
        """Steps that the newest checkpoint has behind it."""
        return latest_step(self.folder / "checkpoints")

    @property
    def today(self) -> str:
        """The day that the run's chat template writes (YYYY-MM-DD), noted when the run begins."""
        return self.notes().get("today") or chosen_day(self.request, self.teachers.get(1))

    def clear(self) -> None:
        """Drop what the registry holds now; the notes stay."""
        for folder in (self.folder / "checkpoints", self.start, self.candidate):
            shutil.rmtree(folder, ignore_errors=True)

    def size(self) -> int:
        """Bytes of the folder now."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def notes(self) -> dict[str, Any]:
        """What the run noted about itself, such as its MLflow run and the seconds it has trained."""
        return notes_of(self.folder)

    def note(self, **values: Any) -> None:
        """Add to the notes, durably."""
        save_text(self.folder / "run.json", json.dumps(self.notes() | values))

    def log(self, text: str) -> None:
        """Add a line to the log that people read (``ladder logs``), with the time; only its owner may read it. A disk
        that takes it no more ends no run."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n"
            descriptor = os.open(self.folder / RUN_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as stream:
                stream.write(line.encode("utf-8", "backslashreplace"))

    def mark(self, done: int, **values: Any) -> None:
        """Note what so many steps took and what was found in them, before their checkpoint is written.

        A run that is cut off in between goes on from the checkpoint before, and from what was noted with that.
        """
        earlier = {step: kept for step, kept in self.notes().get("marks", {}).items() if int(step) < done}
        newest = sorted(earlier, key=int)[-KEPT:]
        self.note(**values, marks={step: earlier[step] for step in newest} | {str(done): values})

    def marked(self, done: int) -> dict[str, Any]:
        """What was noted with the checkpoint of so many steps; nothing before the first."""
        marks: dict[str, Any] = self.notes().get("marks", {})
        return dict(marks.get(str(done), {}))


def notes_of(folder: Path) -> dict[str, Any]:
    """What the run of this folder noted; nothing where there is none, or before it noted anything."""
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run_folder(request: Request, home: Path) -> Path:
    """Where the run of a manifest lies, or will."""
    return home / "runs" / run_name(request.child, request.digest)


class EvaluatorHandle(NamedTuple):
    """Where a run's models are examined: the evaluator, and what it uses of the machine."""

    evaluator: Any
    device: str
    threads: int

    @classmethod
    def of(cls, run: Run, context: Context) -> EvaluatorHandle:
        """The evaluator where the manifest wants it."""
        return cls.start(run.request.manifest.runtime, context.session, context.home)

    @classmethod
    def start(cls, runtime: Runtime, session: Session, home: Path) -> EvaluatorHandle:
        """The evaluator where ``runtime`` wants it; it is started where it does not run yet."""
        placement = session.placement(runtime, ["evaluator"])
        evaluator = session.start(placement, ["evaluator"])["evaluator"]
        session.check_home(home)
        return cls(evaluator, placement.slots["evaluator"].device, threads(runtime, session.machine))


def hosted(run: Run) -> list[int]:
    """Which teachers the method needs and the run has, to speak or to dream, by number."""
    method = method_of(run.request.manifest)
    asked = method.teachers() | method.dreamers() | run.rehearsal.older.keys()
    return sorted(asked & (run.teachers.keys() | run.made.keys()))
