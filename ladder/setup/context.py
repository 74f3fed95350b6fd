"""One manifest on its way: who it comes from, and the folder that says how far it came.

The folder is the journal: each phase ends by putting one durable file in place, so what is there says where to go on,
and the same command does.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ladder.actors.placement import threads
from ladder.actors.session import Session
from ladder.data.sidecars import REPORT
from ladder.manifest import Request
from ladder.manifest.names import run_name
from ladder.methods import method_of
from ladder.registry import Registry
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup.dataset import chosen_day
from ladder.system.files import save_text
from ladder.train.checkpoint import KEPT, latest_step


@dataclass(frozen=True)
class Workshop:
    """What all manifests of one call share.

    Args:
        bare: bytes of an actor that has loaded its libraries and no model, for the price of a run.
    """

    home: Path
    registry: Registry
    session: Session
    console: Console
    bare: int = 0


@dataclass(frozen=True)
class Run:
    """One manifest, its ancestors, and its folder ``home/runs/<child>/<manifest digest>/``.

    Args:
        folders: the Hugging Face folder of each ancestor, by digest.
    """

    request: Request
    ancestry: Ancestry
    folders: dict[str, Path]
    folder: Path

    @classmethod
    def open(cls, request: Request, ancestry: Ancestry, registry: Registry | None, home: Path) -> Run:
        """Find or begin the run of this manifest. Nothing is written but copies of its ancestors, into the cache."""
        known = {one.digest: one for one in (*ancestry.ancestors, *ancestry.teachers.values())}
        folders = {digest: registry.materialize(one) for digest, one in known.items()} if registry else {}
        return cls(request, ancestry, folders, run_folder(request, home))

    @property
    def teachers(self) -> dict[int, Path]:
        """Folders of the teachers there are, by number."""
        return {number: self.folders[teacher.digest] for number, teacher in self.ancestry.teachers.items()}

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
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def note(self, **values: Any) -> None:
        """Add to the notes, durably."""
        save_text(self.folder / "run.json", json.dumps(self.notes() | values))

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


def run_folder(request: Request, home: Path) -> Path:
    """Where the run of a manifest lies, or will."""
    return home / "runs" / run_name(request.child, request.digest)


class Seat(NamedTuple):
    """Where a run's models are examined: the evaluator, and what it uses of the machine."""

    evaluator: Any
    device: str
    threads: int

    @classmethod
    def of(cls, run: Run, work: Workshop) -> Seat:
        """The evaluator where the manifest wants it; it is started where it does not run yet."""
        runtime = run.request.manifest.runtime
        slot = work.session.slots(runtime.devices)["evaluator"]
        evaluator = work.session.start({"evaluator": slot})["evaluator"]
        return cls(evaluator, slot.device, threads(runtime, work.session.machine))


def hosted(run: Run) -> list[int]:
    """Which teachers (1, 2) the method needs and the run has, to speak or to dream."""
    method = method_of(run.request.manifest)
    return sorted((method.teachers() | method.dreamers()) & run.teachers.keys())
