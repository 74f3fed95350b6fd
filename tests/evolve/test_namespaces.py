"""Three machines in network namespaces: the driver's, the teachers' and the student's. The last two die and come back,
and one that does not see the home is refused. What goes from one to the other goes through a network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.evolve.test_deaths import TAUGHT, logged
from tests.evolve.test_same_child import PATIENCE, STEPS, command, reached
from tests.processes import launch

pytestmark = pytest.mark.long
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
HEAD = "10.77.0.1"


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Machines:
    """Namespaces with a bridge between them, and a Ray node in each.

    Args:
        folder: Ray's own, with a name that is short enough for sockets; other machines see one of their own there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, dict[str, subprocess.Popen[Any]]()
        self.names = {role: f"lad{os.getpid()}{role[0]}" for role in ("head", "teaches", "learns")}

    def connect(self) -> None:
        """Make the machines, and start Ray's head on the first."""
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "dev", "lo", "up")
        head = self.names["head"]
        run("ip", "-n", head, "link", "add", "name", "hub", "type", "bridge")
        run("ip", "-n", head, "addr", "add", f"{HEAD}/24", "dev", "hub")
        run("ip", "-n", head, "link", "set", "dev", "hub", "up")
        for number, role in enumerate(("teaches", "learns"), start=2):
            other, port = self.names[role], f"p{number}"
            run("ip", "-n", head, "link", "add", "name", port, "type", "veth", "peer", "name", "eth", "netns", other)
            run("ip", "-n", head, "link", "set", "dev", port, "master", "hub", "up")
            run("ip", "-n", other, "addr", "add", f"10.77.0.{number}/24", "dev", "eth")
            run("ip", "-n", other, "link", "set", "dev", "eth", "up")
        self.start("head", "--head", "--include-dashboard=false", f"--temp-dir={self.folder}", "--num-cpus=0")

    def start(self, role: str, *arguments: str, hidden: Path | None = None) -> None:
        """Start the node of a role; ``hidden``: a folder that it does not see."""
        number = list(self.names).index(role) + 1
        mounts = [] if role == "head" else [self.folder, *([hidden] if hidden else [])]
        said = [*RAY, f"--node-ip-address=10.77.0.{number}", "--object-store-memory=83886080", *arguments]
        if role != "head":
            own = json.dumps({role: 4, **({"blind": 4} if hidden else {})})
            said += [f"--address={HEAD}:6379", "--num-cpus=2", f"--resources={own}"]
        script = "".join(f"mount -t tmpfs none {folder} && " for folder in mounts) + 'exec "$@"'
        inside = ["ip", "netns", "exec", self.names[role], "sh", "-c", script, "sh", *said]
        log = (self.folder.parent / f"{self.folder.name}-{role}.log").open("ab")
        self.started[role] = launch(inside, {"RAY_memory_monitor_refresh_ms": "0"}, stdout=log, stderr=log)

    def inside(self, words: list[str], **named: Any) -> subprocess.Popen[Any]:
        """A command on the driver's machine."""
        environment = {"RAY_ADDRESS": f"{HEAD}:6379"}
        return launch(["ip", "netns", "exec", self.names["head"], *words], environment, **named)

    def kill(self, role: str) -> None:
        """As where the power fails."""
        for pid in run("ip", "netns", "pids", self.names[role]).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.started[role].wait(PATIENCE)

    def close(self) -> None:
        for role in reversed(list(self.started)):
            self.kill(role)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    tried = subprocess.run(["unshare", "-m", "-n", "true"], check=False) if shutil.which("unshare") else None
    if shutil.which("ip") is None or tried is None or tried.returncode or os.geteuid():
        pytest.skip("no namespaces here: that takes root, iproute2 and unshare")
    folder = Path(f"/tmp/lad{os.getpid()}")
    folder.mkdir()
    made = Machines(folder)
    try:
        made.connect()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
        for log in folder.parent.glob(f"{folder.name}-*.log"):
            log.unlink()


def test_each_machine_dies_and_comes_back(
    copy_of: Callable[..., Any], machines: Machines, tally: Callable[..., None]
) -> None:
    whole, struck = copy_of("whole"), copy_of("struck")
    training = {"steps": STEPS, "lr": 0.003, "batch_size": 9}
    runtime: dict[str, Any] = {"checkpoint_every": 4, "threads": 1}
    (before,) = whole.evolve(whole.manifest(3, TAUGHT, parent=2, training_params=training, runtime=runtime))
    assert before.verdict == "PROMOTED", before.detail
    teaches = {"resources": {"teaches": 1.0}}
    runtime["devices"] = {"student": {"resources": {"learns": 1.0}}, "teacher1": teaches, "teacher2": teaches}
    path = struck.manifest(3, TAUGHT, parent=2, training_params=training, runtime=runtime)
    machines.start("teaches")
    machines.start("learns")
    time.sleep(10)
    log = struck.folder / "log"
    with log.open("wb") as said:
        process = machines.inside(command(path, struck.home), stdout=said, stderr=said)
        for role, step in (("teaches", STEPS // 4), ("learns", STEPS // 2)):
            deadline = time.monotonic() + PATIENCE
            while reached(struck.home) < step:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            machines.kill(role)
            machines.start(role)
        assert process.wait(PATIENCE) == 0, log.read_text()
    same = struck.registry.head("Toy").digest == whole.registry.head("Toy").digest
    tally("machines in namespaces die and come back", tried=2, the_same_digest=int(same))
    assert same and logged(struck) == list(range(STEPS)) and struck.registry.verify("Toy") == []
    (notes,) = (json.loads(path.read_text()) for path in struck.home.glob("runs/Toy-G003/*/run.json"))
    told = notes["usage"]["nodes"]
    assert told["10.77.0.2"]["received_bytes"] == 0 < told["10.77.0.2"]["sent_bytes"]
    assert told["10.77.0.3"]["sent_bytes"] == 0 < told["10.77.0.3"]["received_bytes"]
    machines.kill("learns")
    machines.start("learns", hidden=struck.home)
    time.sleep(10)
    runtime["devices"] = {"student": {"resources": {"blind": 1.0}}}
    other = struck.manifest(4, "continual_pretraining", parent=3, training_params=training, runtime=runtime)
    process = machines.inside(command(other, struck.home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "node 10.77.0.3, where the student lives, does not see the home" in text
    assert not list(struck.home.glob("runs/Toy-G004/*/checkpoints"))
