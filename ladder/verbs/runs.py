"""The runs of a home as their folders and the store tell of them: how far each came, and what it left to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ladder.data import REPORT
from ladder.errors import NotFound, UsageError
from ladder.manifest import Name, run_name
from ladder.registry import Generation, Registry, is_held
from ladder.registry.runs import RunState
from ladder.report.terminal import LOG, RUN_LOG
from ladder.report.text import duration_text, size_text, table

GO_ON = "the same `ladder evolve` goes on"


@dataclass(frozen=True)
class RunEntry:
    """One run: a child with one manifest.

    Args:
        manifest: the first 16 digits of the manifest's digest.
        ref: the generation that it was recorded as; None where it was not.
        state: decided, running, halted, failed or cut off.
        said: the verdict, or how far it came and why no farther.
        step: steps behind its newest checkpoint.
        steps: that it would take in all; None where that is not known.
        changed: when its folder was last written to, UTC.
        size: bytes of its folder.
        seconds: that it trained.
    """

    child: str
    manifest: str
    ref: str | None
    state: str
    said: str
    step: int
    steps: int | None
    changed: datetime
    size: int
    seconds: float
    folder: Path

    @property
    def name(self) -> str:
        """As ``ladder logs`` takes it."""
        return f"{self.child}/{self.manifest}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return vars(self) | {"changed": self.changed.isoformat(), "folder": str(self.folder)}


def runs_of(registry: Registry | None, home: Path, family: str | None = None) -> list[RunEntry]:
    """Every run of a home, or of one family, the one that was written to last at the end.

    Args:
        registry: None where there is no store; then nothing is known but the folders.
    """
    folders = [folder for folder in _folders(home) if family in (None, _family(folder))]
    families = {_family(folder) for folder in folders}
    known = {name: registry.generations(name) if registry else [] for name in families}
    held = {name for name in families if is_held(home, name, "evolve")}
    found = sorted((_entry(folder, registry, known[_family(folder)]) for folder in folders), key=lambda e: e.changed)
    newest = {_family(entry.folder): entry for entry in found if entry.state != "decided"}
    return [
        _running(entry) if _family(entry.folder) in held and entry is newest.get(_family(entry.folder)) else entry
        for entry in found
    ]


def check_family(registry: Registry | None, home: Path, family: str) -> None:
    """See that a family has a run or a generation; the first run of a new one stands in no store yet.

    Raises:
        NotFound: it has neither.
    """
    if any((home / "runs").glob(f"{family}-G*")):
        return
    if registry is None:
        raise NotFound(f"no run of {family}", where=f"home {home}", remedy="name the home that has it: --home")
    registry.require(family)


def _folders(home: Path) -> Iterator[Path]:
    for folder in sorted((home / "runs").glob("*/*")):
        if folder.is_dir() and any(folder.iterdir()):
            yield folder


def _family(folder: Path) -> str:
    return Name.parse(folder.parent.name).family


def notes_of(folder: Path) -> dict[str, Any]:
    """What a run noted about itself; nothing before it began to train."""
    path = folder / "run.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def reached(folder: Path) -> int:
    """Steps that the newest checkpoint has behind it."""
    steps = (found.name.removeprefix("step-") for found in (folder / "checkpoints").glob("step-*"))
    return max((int(step) for step in steps if step.isdigit()), default=0)


def _entry(folder: Path, registry: Registry | None, known: Sequence[Generation]) -> RunEntry:
    notes = notes_of(folder)
    generation = _decided(folder, known)
    run = registry.run_state(notes["mlflow_run"]) if registry and "mlflow_run" in notes else None
    step = max([reached(folder), *map(int, notes.get("marks", {}))]) if generation else reached(folder)
    steps = _steps(run)
    state, said = _state(folder, notes, generation, run, step, steps)
    files = [file for file in folder.rglob("*") if file.is_file()]
    return RunEntry(
        child=folder.parent.name,
        manifest=folder.name,
        ref=generation.ref if generation else None,
        state=state,
        said=said,
        step=step,
        steps=steps,
        changed=datetime.fromtimestamp(max(file.stat().st_mtime for file in [folder, *files]), UTC),
        size=sum(file.stat().st_size for file in files),
        seconds=float(notes.get("seconds", 0.0)),
        folder=folder,
    )


def _decided(folder: Path, known: Sequence[Generation]) -> Generation | None:
    made = [
        one
        for one in known
        if one.manifest_digest and run_name(one.name, one.manifest_digest) == f"{folder.parent.name}/{folder.name}"
    ]
    return made[-1] if made else None


def _steps(run: RunState | None) -> int | None:
    told = run.params.get("training_params.steps", "") if run else ""
    return int(told) if told.isdigit() else None


def _state(
    folder: Path,
    notes: Mapping[str, Any],
    generation: Generation | None,
    run: RunState | None,
    step: int,
    steps: int | None,
) -> tuple[str, str]:
    """The state in a word, and in a sentence."""
    if generation:
        failed = f", failed {', '.join(generation.failed_gates)}" if generation.failed_gates else ""
        return "decided", f"{generation.verdict} as {generation.ref}{failed}"
    if halted := notes.get("halted"):
        return "halted", f"law {halted['law']} at {halted['where']}; the same manifest does not go on"
    came = _came(folder, step, steps)
    if run and run.reason:
        return "failed", f"{came}: {run.reason}"
    error = " with an unexpected error, see its log" if (folder / LOG).is_file() else ""
    return "cut off", f"{came}{error}; {GO_ON}"


def _came(folder: Path, step: int, steps: int | None) -> str:
    """How far a run came."""
    if (folder / "candidate" / "ladder" / REPORT).is_file():
        return "examined, not recorded"
    if (folder / "candidate").is_dir():
        return "trained, not examined"
    of = f" of {steps}" if steps else ""
    if step:
        return f"at step {step}{of}"
    return "before its first checkpoint" + (", its dreams written" if (folder / "dreams.jsonl").is_file() else "")


def _running(entry: RunEntry) -> RunEntry:
    of = f" of {entry.steps}" if entry.steps else ""
    said = f"its family's evolve is at work; checkpoint of step {entry.step}{of}"
    return RunEntry(**{**vars(entry), "state": "running", "said": said})


def runs_text(found: Sequence[RunEntry], now: datetime | None = None) -> str:
    """A line a run."""
    if not found:
        return "no runs"
    now = now or datetime.now(UTC)
    lines = [
        (entry.name, entry.state, _age(now - entry.changed), size_text(entry.size), entry.said.split("\n")[0])
        for entry in found
    ]
    return table([("run", "state", "written", "size", "what became of it"), *lines], right={3})


def _age(passed: timedelta) -> str:
    seconds = max(0.0, passed.total_seconds())
    if seconds < 5400:
        return f"{duration_text(seconds)} ago"
    return f"{seconds / 3600:.0f} hours ago" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days ago"


def run_called(found: Sequence[RunEntry], subject: str, registry: Registry | None) -> RunEntry:
    """The run that a word means: ``Luna-G003/ab20755d``, ``Luna-G003`` (its newest run), or a generation.

    Raises:
        NotFound: there is none.
        UsageError: several answer to it.
    """
    child, _, digest = subject.partition("/")
    exact = [entry for entry in found if entry.child == child and entry.manifest.startswith(digest)]
    if exact and not digest:
        return exact[-1]
    if len(exact) == 1:
        return exact[0]
    if exact:
        names = ", ".join(entry.name for entry in exact)
        raise UsageError(f"{subject} may be {names}", where=subject, remedy=f"write more of it: {exact[-1].name}")
    generation = registry.find(subject) if registry and "/" not in subject else None
    if generation and (mine := [entry for entry in found if entry.ref == generation.ref]):
        return mine[-1]
    names = ", ".join(entry.name for entry in found[-5:]) or "none"
    where = f"{generation.ref} left no run here" if generation else f"no run is called {subject}"
    raise NotFound(f"{where}; the newest are {names}", remedy="`ladder runs` lists all of them")


def log_text(entry: RunEntry) -> str:
    """Everything of a run that can be read: its state, its log, what its notes tell of checkpoints, the traceback of an
    error that nobody foresaw."""
    head = f"{entry.name}: {entry.state}, {entry.said}"
    parts = [head, _file(entry.folder / RUN_LOG) or _noted(notes_of(entry.folder)), _file(entry.folder / LOG)]
    return "\n\n".join(part for part in parts if part)


def _file(path: Path) -> str:
    """A file's text with its path in front of it; what steers a terminal is written out."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").rstrip("\n").split("\n")
    return "\n".join([f"{path}", *(("".join(map(_plain, line))) for line in lines)])


def _plain(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _noted(notes: Mapping[str, Any]) -> str:
    """What a run without a log noted: by a ladder from before there was one."""
    marks = notes.get("marks", {})
    lines = [
        f"checkpoint of step {step}: {mark.get('seconds', 0):.0f} s and {mark.get('tokens', 0):,} tokens in all"
        for step, mark in sorted(marks.items(), key=lambda pair: int(pair[0]))
    ]
    if deaths := notes.get("deaths"):
        lines.append(f"{deaths} times an actor died, and was started again")
    return "\n".join(["it has no log of its own; its notes say", *(lines or ["nothing"])])
