"""One manifest, one child: whatever dies on the way, and whatever was cached, its digest is the same.

The long half of ``test_stopped.py`` and ``test_deaths.py``; figures are printed at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ladder.train.checkpoint import latest_step
from tests.evolve.test_deaths import child, killed_at, logged
from tests.evolve.test_stopped import stopped
from tests.processes import check_nobody_is_left, launch
from tests.tally import Tally

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("own_actors")]
PATIENCE, STEPS = 600, 100


def command(path: Path, home: Path) -> list[str]:
    return [sys.executable, "-m", "ladder", "evolve", str(path), "--home", str(home), "--quiet"]


def started(path: Path, home: Path) -> subprocess.Popen[bytes]:
    return launch(command(path, home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(path: Path, home: Path) -> None:
    process = started(path, home)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said.decode()


def kill(process: subprocess.Popen[bytes]) -> bool:
    """SIGKILL to the whole group, which Ray's processes follow; whether it was still alive."""
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    check_nobody_is_left(process.pid)
    return alive


@pytest.fixture(scope="module")
def whole(ray_session: None, climbed: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The child of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "family"
    shutil.copytree(climbed.folder, folder)
    family = type(climbed)(folder)
    (outcome,) = family.evolve(child(family, STEPS))
    assert outcome.verdict == "PROMOTED", outcome.detail
    return family


def is_the_same(family: Any, whole: Any) -> bool:
    """Equal digest, one version of the child, every step logged once, nothing damaged."""
    refs = [known.ref for known in family.registry.generations("Toy")]
    assert refs.count("Toy-G003") == 1 and family.registry.verify("Toy") == []
    assert logged(family) == list(range(STEPS))
    return bool(family.registry.head("Toy").digest == whole.registry.head("Toy").digest)


def reached(home: Path) -> int:
    """Steps behind the newest checkpoint of the child."""
    return max(map(latest_step, home.glob("runs/Toy-G003/*/checkpoints")), default=0)


def test_killed_at_ten_random_moments(whole: Any, copy_of: Callable[..., Any], tally: Tally) -> None:
    trial, draw, equal, alive = "T7, SIGKILL of the whole group at random moments", random.Random(0), 0, 0
    first = copy_of("uncut")
    began = time.monotonic()
    finished(child(first, STEPS), first.home)
    takes = time.monotonic() - began
    for number in range(10):
        family = copy_of(f"killed-{number}")
        process = started(child(family, STEPS), family.home)
        time.sleep(draw.uniform(0.1, 0.95) * takes)
        struck = kill(process)
        tally(trial, tried=1, alive_then=struck)
        finished(child(family, STEPS), family.home)
        same = is_the_same(family, whole)
        tally(trial, the_same_digest=same)
        alive, equal = alive + struck, equal + same
    assert equal == 10 and alive >= 5


def test_stopped_at_ten_random_moments(whole: Any, copy_of: Callable[..., Any], tally: Tally) -> None:
    trial, draw, equal, alive = "T7, Ctrl-C and SIGTERM in turn at random moments", random.Random(1), 0, 0
    first = copy_of("uncut")
    began = time.monotonic()
    finished(child(first, STEPS), first.home)
    takes = time.monotonic() - began
    for number in range(10):
        family, stop = copy_of(f"stopped-{number}"), (signal.SIGINT, signal.SIGTERM)[number % 2]
        process = started(child(family, STEPS), family.home)
        time.sleep(draw.uniform(0.02, 0.95) * takes)
        said = stopped(process, stop)
        tally(trial, tried=1, alive_then=bool(said))
        assert [found for found in family.registry.verify("Toy") if "was cut off" not in found.problem] == []
        finished(child(family, STEPS), family.home)
        same = is_the_same(family, whole)
        tally(trial, the_same_digest=same)
        alive, equal = alive + bool(said), equal + same
    assert equal == 10 and alive >= 5


def test_killed_three_times(whole: Any, copy_of: Callable[..., Any], tally: Tally) -> None:
    family = copy_of()
    for number in range(3):
        process, deadline = started(child(family, STEPS), family.home), time.monotonic() + PATIENCE
        while reached(family.home) < 25 * (number + 1):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        assert kill(process)
    finished(child(family, STEPS), family.home)
    same = is_the_same(family, whole)
    tally("T7, SIGKILL of the whole group three times in one run", tried=1, the_same_digest=same)
    assert same


def test_twenty_deaths_in_one_session(
    whole: Any, copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    family, kinds = copy_of(), turns()
    killed = killed_at(monkeypatch, {count: next(kinds) for count in range(3, 3 + 5 * 20, 5)})
    (outcome,) = family.evolve(child(family, STEPS))
    assert outcome.verdict == "PROMOTED", outcome.detail
    same = is_the_same(family, whole)
    tally("T6, SIGKILL of actors in one run", actors_killed=len(killed), the_same_digest=same)
    assert len(killed) == 20 and same


def turns() -> Iterator[str]:
    while True:
        yield from ("student", "teacher")


def test_a_warm_cache_of_signals(whole: Any, copy_of: Callable[..., Any]) -> None:
    family = copy_of()
    signals = whole.home / "cache" / "signals"
    assert signals.is_dir()
    shutil.rmtree(family.home / "cache" / "signals", ignore_errors=True)
    shutil.copytree(signals, family.home / "cache" / "signals")
    (outcome,) = family.evolve(child(family, STEPS))
    assert outcome.verdict == "PROMOTED" and is_the_same(family, whole)
