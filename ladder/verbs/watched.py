"""Runs as their folders tell of them now, in whichever process or on whichever machine they go on; nothing is written,
and no run is touched."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from ladder.manifest import Name, run_name
from ladder.registry import Generation, Registry, is_held
from ladder.report.beacon import LIVE
from ladder.report.live import left_text
from ladder.report.terminal import RUN_LOG
from ladder.verbs.runs import notes_of

STALE = 15.0
"""Seconds after which a file that is written every second is one of a process that died."""
RUNS = 8
"""Runs that are looked at, those that were written to last."""
TAIL = 64 * 2**10
"""Bytes of a log that are read, from its end."""
_OWN = ("live.json", "run.log", "run.json")


@dataclass(frozen=True)
class Watched:
    """One run as it is now.

    Args:
        manifest: the first 16 digits of its manifest's digest.
        state: running, ended, or cut off; of one that is decided its verdict.
        doing: what it does now, in a line, with the time that is left.
        step: steps that are done, of ``steps``; None before the training, and of runs of older ladders.
        losses: the loss over the steps, as means over stretches of equal length; ``eces`` the calibration error.
        routes: share of the trained tokens by route.
        memory_bytes: resident now, by process, where these are here; else the peaks up to its last checkpoint.
        wire_bytes: what teachers sent since it last went on.
        left: seconds until the training is over.
        gates: those that are decided, with ``name``, ``state`` and ``said``.
        log: the last lines of its log.
        changed: when it was last written to, UTC.
    """

    child: str
    manifest: str
    state: str
    doing: str
    changed: datetime
    folder: Path
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    losses: tuple[float, ...] = ()
    ece: float | None = None
    eces: tuple[float, ...] = ()
    routes: Mapping[str, float] = field(default_factory=dict)
    tokens_a_second: float | None = None
    left: float | None = None
    wire_bytes: int = 0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    gates: tuple[Mapping[str, str], ...] = ()
    log: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As ``ladder logs`` takes it."""
        return f"{self.child}/{self.manifest}"

    @property
    def running(self) -> bool:
        return self.state == "running"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"changed": self.changed.isoformat(), "folder": str(self.folder)}


class Watcher:
    """Looks at a home, again and again.

    Args:
        family: whose runs; None: everybody's.
        registry: says what was decided; None where there is no store yet.
    """

    def __init__(self, home: Path, family: str | None, registry: Registry | None) -> None:
        self.home, self.family, self.registry = home, family, registry
        self._known: dict[str, Generation] = {}
        self._asked = 0.0

    def look(self) -> list[Watched]:
        """The runs that were written to last: those in progress first, then the newest."""
        folders = (self.home / "runs").glob(f"{self.family or '*'}-G*/*")
        written = sorted(((_written(folder), folder) for folder in folders), reverse=True)
        newest = [folder for time_, folder in written[:RUNS] if time_]
        families = {_family(folder) for folder in newest}
        held = {family for family in families if is_held(self.home, family, "evolve")}
        runs = [_run(folder, held) for folder in newest]
        if any(not one.running for one in runs):
            self._ask(families)
        decided = [self._decided(one) for one in runs]
        return sorted(decided, key=lambda one: not one.running)

    def _ask(self, families: set[str]) -> None:
        """What the registry has decided, at most every five seconds."""
        if self.registry is None or time.monotonic() < self._asked + 5.0:
            return
        known = (one for family in sorted(families) for one in self.registry.generations(family))
        self._known = {run_name(one.name, one.manifest_digest): one for one in known if one.manifest_digest}
        self._asked = time.monotonic()

    def _decided(self, run: Watched) -> Watched:
        """With its verdict, where it has one."""
        known = None if run.running else self._known.get(run.name)
        if known is None:
            return run
        failed = f", failed {', '.join(known.failed_gates)}" if known.failed_gates else ""
        said = f"{known.verdict} as {known.ref}{', HEAD' if known.is_head else ''}{failed}"
        return Watched(**{**vars(run), "state": str(known.verdict), "doing": said})


def _family(folder: Path) -> str:
    return Name.parse(folder.parent.name).family


def _written(folder: Path) -> float:
    """When one of its own files was last written; 0 where it has none."""
    times = [0.0]
    for name in _OWN:
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def _run(folder: Path, held: set[str]) -> Watched:
    live, log, changed = _live(folder), _tail(folder / RUN_LOG), _written(folder)
    fresh = not live.get("ended", True) and time.time() - (folder / LIVE).stat().st_mtime < STALE
    holds = _family(folder) in held
    last = log[-1][20:] if log else ""
    # A ladder of before writes no live.json; its family is held, and its log is young.
    running = fresh or (not live and holds and time.time() - changed < 600)
    state = "running" if running else "ended" if live.get("ended") else "cut off"
    training, notes = live.get("training") or {}, notes_of(folder)
    return Watched(
        child=folder.parent.name,
        manifest=folder.name,
        state=state,
        doing=(live.get("doing") or last) if running else last,
        changed=datetime.fromtimestamp(changed, UTC),
        folder=folder,
        step=training.get("step"),
        steps=training.get("steps"),
        loss=training.get("loss"),
        losses=tuple(training.get("losses", ())),
        ece=training.get("ece"),
        eces=tuple(training.get("eces", ())),
        routes=training.get("routes", {}),
        tokens_a_second=training.get("tokens_a_second"),
        left=training.get("left") if running else None,
        wire_bytes=training.get("wire_bytes") or notes.get("usage", {}).get("wire_bytes", 0),
        memory_bytes=(_resident(live) if running else {}) or notes.get("usage", {}).get("memory_bytes", {}),
        gates=tuple(live.get("gates", ())),
        log=tuple(log),
    )


def _live(folder: Path) -> dict[str, Any]:
    """What the run tells of itself; nothing where it is of an older ladder, or just replaced."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / LIVE).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _tail(log: Path) -> list[str]:
    """The last lines of a log, with what steers a terminal written out."""
    with suppress(OSError), log.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()[size > TAIL :]
        return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines]
    return []


def _resident(live: Mapping[str, Any]) -> dict[str, int]:
    """Resident bytes now of a run's actors and driver, where these are processes of this machine; else nothing."""
    import socket

    found: dict[str, int] = {}
    with suppress(psutil.Error, KeyError):
        if live["host"] != socket.gethostname():
            return {}
        driver = psutil.Process(live["pid"])
        found["driver"] = driver.memory_info().rss
        for process in driver.children(recursive=True):
            with suppress(psutil.Error, IndexError):
                title = process.cmdline()[0]
                if title.startswith("ray::") and "Actor" in title:
                    role = title.removeprefix("ray::").partition("Actor")[0].lower()
                    found[role] = found.get(role, 0) + process.memory_info().rss
    return found


def left_of(run: Watched) -> str:
    """The time that is left; empty where nobody knows."""
    return left_text(run.left).removeprefix(", ").removesuffix(" left")
