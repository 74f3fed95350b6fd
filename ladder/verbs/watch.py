"""``ladder watch``: runs in progress as plain lines, or as the screen of ``ladder/verbs/screen.py``. It only reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ladder.registry import Registry
from ladder.report.terminal import RUN_LOG
from ladder.report.text import size_text
from ladder.verbs.runs import check_family
from ladder.verbs.watched import Watched, Watcher


def begin(
    home: Path,
    family: str | None,
    registry: Registry | None,
    *,
    plain: bool,
    once: bool,
    tell: Callable[[Mapping[str, Any], str], object],
    note: Callable[[Sequence[str]], object],
) -> None:
    """Watch until somebody leaves or, in plain lines, until no run is in progress.

    Args:
        tell: answers with what is there now, as data and as text, where it is asked ``once``.
        note: says why there are lines instead of a screen.

    Raises:
        NotFound: the home knows no such family.
    """
    watcher = Watcher(home, family, registry)
    if family:
        check_family(registry, home, family)
    if once:
        runs = watcher.look()
        tell({"runs": [one.to_dict() for one in runs]}, once_text(runs))
        return
    # The screen reads keys from standard input, and is drawn on standard error.
    shown = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    screen = _screen(note) if shown and not plain else None
    if screen is not None:
        screen(watcher, f"ladder watch {family or 'all families'}   home {home}").run()
        return
    for line in watch_lines(watcher):
        print(line, flush=True)


def _screen(note: Callable[[Sequence[str]], object]) -> Any:
    """The screen; None where textual is not installed."""
    try:
        from ladder.verbs.screen import WatchScreen
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        note(["textual is not installed, so these are lines: pip install 'generation-ladder[watch]' for a screen"])
        return None
    return WatchScreen


def watch_lines(watcher: Watcher, wait: Callable[[float], object] = time.sleep, every: float = 5.0) -> Iterator[str]:
    """Plain lines for pipes and terminals without a screen: what a run logs, when it does, and how far it is every few
    seconds; until none is in progress any more.

    Args:
        wait: waits for so many seconds.
    """
    seen: dict[str, int] = {}
    said, runs = dict[str, float](), watcher.look()
    if not any(one.running for one in runs):
        yield from map(end_text, runs)
        yield "no run is in progress"
        return
    while True:
        for one in runs:
            if one.running or one.name in seen:
                yield from (f"{one.child} {line[11:]}" for line in _new(one, seen))
            if one.running and time.monotonic() - said.get(one.name, 0.0) >= every:
                said[one.name] = time.monotonic()
                yield f"{one.child} {now_text(one)}"
        if not any(one.running for one in runs):
            yield from (end_text(one) for one in runs if one.name in seen)
            return
        wait(1.0)
        runs = watcher.look()


def _new(run: Watched, seen: dict[str, int]) -> Sequence[str]:
    """Lines of its log that were not told of; of those from before the first look, the last three."""
    size = (run.folder / RUN_LOG).stat().st_size if (run.folder / RUN_LOG).is_file() else 0
    before = seen.get(run.name)
    seen[run.name] = size
    if before is None:
        return run.log[-3:]
    if size <= before:
        return ()
    with (run.folder / RUN_LOG).open("rb") as stream:
        stream.seek(before)
        count = stream.read(size - before).count(b"\n")
    return run.log[-count:] if count else ()


def now_text(run: Watched) -> str:
    """What it does now, with calibration, wire and memory."""
    doing = run.doing.removeprefix(f"{run.child} ")
    parts = [f"calibration error {run.ece:.3f}"] if run.ece is not None else []
    parts += [f"wire {size_text(run.wire_bytes)}"] if run.wire_bytes else []
    parts += [f"memory {size_text(sum(run.memory_bytes.values()))}"] if run.memory_bytes else []
    return "  ".join([doing, *parts])


def end_text(run: Watched) -> str:
    """What became of a run; a verdict says its state itself."""
    return f"{run.name} {run.doing if run.doing.startswith(run.state) else f'{run.state}: {run.doing}'}"


def once_text(runs: Sequence[Watched]) -> str:
    """Every run in a line, and the gates of those in progress."""
    lines = []
    for one in runs:
        lines.append(f"{one.name} running: {now_text(one)}" if one.running else end_text(one))
        lines += [f"  {gate['state']} {gate['name']}: {gate['said']}" for gate in one.gates if one.running]
    return "\n".join(lines or ["no runs"])
