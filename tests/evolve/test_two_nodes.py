"""Teachers on one node and the student on another: each dies and comes back, and the child is the same.

A node that does not see the home is refused before anything is loaded there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.evolve.test_deaths import STEPS, TAUGHT, child, logged
from tests.processes import check_nobody_is_left, launch

APART = """
import itertools, json, os, signal, subprocess, sys, time
import ray
from pathlib import Path
from ray.cluster_utils import Cluster
import ladder.run.train as training
from ladder.spine import evolve
from ladder.manifest import read_requests
from ladder.report.console import Console

home, paths, blind = Path(sys.argv[1]), [Path(sys.argv[2])], sys.argv[3:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
small = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
nodes = {name: cluster.add_node(resources={name: 4}, **small) for name in ("teaches", "learns")}
real, count, deaths = training.stream, itertools.count(1), {6: "teaches", 15: "learns"}

def stream(*arguments):
    for report in real(*arguments):
        yield report
        if name := deaths.get(next(count)):
            cluster.remove_node(nodes[name], allow_graceful=False)
            nodes[name] = cluster.add_node(resources={name: 4}, **small)

training.stream = stream
console = Console(quiet=True)
(outcome,) = evolve(read_requests(paths), home, console, cluster.address)
print(json.dumps([outcome.verdict, outcome.detail]), flush=True)
if blind:
    hidden = f"mount -t tmpfs none {home} && exec {sys.executable} -m ray.scripts.scripts start --block"
    asked = f"--address={cluster.address} --num-cpus=2 --resources='{json.dumps({'blind': 4})}'"
    small = "--object-store-memory=83886080"
    node = subprocess.Popen(["unshare", "-m", "sh", "-c", f"{hidden} {asked} {small}"], start_new_session=True,
                            stdout=subprocess.DEVNULL)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    while "blind" not in ray.cluster_resources():
        assert node.poll() is None
        time.sleep(0.2)
    (outcome,) = evolve(read_requests([Path(blind[0])]), home, console, cluster.address)
    print(json.dumps([outcome.verdict, outcome.detail]), flush=True)
    ray.shutdown()
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(60)
cluster.shutdown()
"""


def may_hide() -> bool:
    """Whether this process may start another one that has its own mounts."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


@pytest.mark.long
def test_each_node_dies_and_comes_back(copy_of: Callable[..., Any], tally: Callable[..., None]) -> None:
    whole, struck = copy_of("whole"), copy_of("struck")
    (before,) = whole.evolve(child(whole))
    assert before.verdict == "PROMOTED", before.detail
    training = {"steps": STEPS, "lr": 0.003, "batch_size": 9}
    teaches = {"device": "cpu", "resources": {"teaches": 1.0}}
    devices = {"student": {"resources": {"learns": 1.0}}, "teacher1": teaches, "teacher2": teaches}
    runtime = {"checkpoint_every": 4, "threads": 1, "devices": devices}
    path = struck.manifest(3, TAUGHT, parent=2, training_params=training, runtime=runtime)
    runtime["devices"] = {"student": {"resources": {"blind": 1.0}}}
    other = struck.manifest(4, "continual_pretraining", parent=3, training_params=training, runtime=runtime)
    command = [sys.executable, "-c", APART, str(struck.home), str(path), *([str(other)] if may_hide() else [])]
    process = launch(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    check_nobody_is_left(process.pid)
    (verdict, detail), *rest = [json.loads(line) for line in said.splitlines() if line.startswith("[")]
    assert verdict == "PROMOTED", detail
    same = struck.registry.head("Toy").digest == whole.registry.head("Toy").digest
    tally("the teachers' node and the student's node die in one run", tried=1, the_same_digest=int(same))
    assert same and logged(struck) == list(range(STEPS)) and struck.registry.verify("Toy") == []
    (notes,) = (json.loads(path.read_text()) for path in struck.home.glob("runs/Toy-G003/*/run.json"))
    assert 2 <= notes["deaths"] <= 6, "a node that is gone may be found out twice"
    told = notes["usage"]["nodes"]
    assert len(told) >= 2
    assert sum(one["sent_bytes"] for one in told.values()) == sum(one["received_bytes"] for one in told.values())
    assert all(bool(one["sent_bytes"]) != bool(one["received_bytes"]) for one in told.values())
    assert sum(one["received_bytes"] for one in told.values()) == notes["usage"]["wire_bytes"]
    for verdict, detail in rest:
        assert verdict == "FAILED" and "where the student lives, does not see the home: FileNotFoundError" in detail
        assert str(struck.home) in detail and not list(struck.home.glob("runs/Toy-G004/*/checkpoints"))
        assert not list((struck.home / "cache").glob("seen-*"))
