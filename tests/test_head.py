"""A Ray head that is started as docs/cluster.md says: where it listens, and what an actor there finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.processes import LOOPBACK, check_nobody_is_left, launch, listening
from tests.tally import Tally

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cluster.md"
PORT, DASHBOARD, CLIENTS, AGENT = 46379, 48265, 46001, 46365
STARTING = 180


def block(beginning: str) -> list[str]:
    """The page's commands under the line that begins so."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(beginning)) + 2
    last = next(place for place, line in enumerate(lines[first:], first) if not line.startswith("    "))
    return [line.strip() for line in lines[first:last]]


def moved(command: str) -> str:
    """The page's command at ports that nobody else uses here."""
    if "ray start" in command:
        ports = f"--port={PORT} --ray-client-server-port={CLIENTS} --dashboard-agent-listen-port={AGENT}"
        return f"exec {command} {ports} --dashboard-port={DASHBOARD} --num-cpus=2"
    return command.replace("8265", str(DASHBOARD)).replace("6379", str(PORT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a person who follows the page; Ray keeps its token there."""
    return tmp_path_factory.mktemp("person")


@pytest.fixture(scope="module")
def head(folder: Path) -> Iterator[tuple[int, set[tuple[str, int]]]]:
    """The page's head, and everything that listened while it started."""
    script = "\n".join(map(moved, block("In one terminal")))
    environment = {"HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    seen: set[tuple[str, int]] = set()
    with (folder / "log").open("wb") as log:
        process = launch(["bash", "-c", script], environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + STARTING
            while {PORT, DASHBOARD, CLIENTS, AGENT} - {port for _, port in seen}:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                seen |= listening(process.pid)
                time.sleep(0.2)
            yield process.pid, seen
        finally:
            process.terminate()
            process.wait(60)
    check_nobody_is_left(process.pid)


def joined(folder: Path, commands: list[str], timeout: int = 240) -> str:
    """What these commands print in a shell that follows the page, too."""
    environment = os.environ | {"HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)], env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ACTOR = """
import json, sys
from ladder.actors.session import Session, fetch
from ladder.manifest import Runtime

def listening():
    import psutil
    return [each.laddr.ip for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN]

with Session(sys.argv[1]) as session:
    roles = ["evaluator"]
    actor = session.start(session.placement(Runtime(), roles), roles)["evaluator"]
    found = fetch(actor.__ray_call__.remote(lambda self: dict(__import__("os").environ)))
    sockets = fetch(actor.__ray_call__.remote(lambda self: listening())) + listening()
    print(json.dumps([found, [vars(host) for host in session.hosts(roles)], sockets]))
"""


def test_the_pages_head_listens_on_loopback_alone(head: tuple[int, set[tuple[str, int]]]) -> None:
    leader, seen = head
    seen = seen | listening(leader)
    assert len(seen) > 8
    assert sorted(where for where in seen if where[0] not in LOOPBACK) == []


def test_an_actor_there_has_every_setting(head: tuple[int, set[tuple[str, int]]], folder: Path) -> None:
    from ladder.actors.settings import TRAVELLING

    login = [moved(line) for line in block("In another one") if line.startswith("export")]
    setting = "export OMP_WAIT_POLICY=passive TQDM_DISABLE=0"
    (folder / "actor.py").write_text(ACTOR)
    found: dict[str, str]
    found, (host,), sockets = json.loads(
        joined(folder, [*login, setting, f"python {folder}/actor.py 127.0.0.1:{PORT}"])
    )
    assert found.keys() >= set(TRAVELLING)
    assert (found["OMP_WAIT_POLICY"], found["TQDM_DISABLE"]) == ("passive", "0"), "a person's own settings win"
    assert sockets and set(sockets) <= set(LOOPBACK), "the worker's and the driver's"
    assert host["waits"] == "passive" and host["cores"] >= 1


@pytest.mark.long
def test_a_job_there_promotes_and_its_steps_take_as_long_as_here(
    head: tuple[int, set[tuple[str, int]]], folder: Path, tally: Tally
) -> None:
    """Without the settings that travel, a step took 72 times as long."""
    from ladder.verbs.init import create

    create(folder / "mine")
    job = [f"cd {folder}/mine", *map(moved, block("In another one"))]
    joined(folder, [line.replace("manifests/luna", ".") for line in job], timeout=1800)
    joined(folder, [f"cd {folder}/mine", "ladder evolve . --home ../here"], timeout=1800)
    there, here = seconds_a_step(folder / "mine" / ".ladder"), seconds_a_step(folder / "here")
    tally("seconds a step", on_the_pages_head=round(there, 3), on_a_ray_of_its_own=round(here, 3))
    assert there < 2 * here
    # The same head looks at what it made again. Its children have no teacher to ask, for they are decided.
    login = [f"cd {folder}/mine", *[line for line in job[1:] if line.startswith("export")]]
    submit = f"ladder submit --address http://127.0.0.1:{DASHBOARD} --home $PWD/.ladder --job"
    again = joined(folder, [*login, f"{submit} evaluate Mine@HEAD"], timeout=600)
    assert '"child": "Mine-G001"' in again and '"verdict": "PASSED"' in again and "SUCCEEDED" in again
    warmed = joined(folder, [*login, f"{submit} warm-cache ."], timeout=600)
    assert warmed.count('"verdict": "NOTHING"') == 2 and "SUCCEEDED" in warmed


def seconds_a_step(home: Path) -> float:
    """The median over the child's steps, with waiting."""
    from ladder.registry import open_registry

    registry = open_registry(home, create=False)
    head = registry.find("Mine@HEAD")
    assert head.ref == "Mine-G001"
    found = registry.step_metrics(head.run_id, "perf/")
    return median(taken + waited for (_, taken), (_, waited) in zip(found["seconds"], found["waited"], strict=True))
