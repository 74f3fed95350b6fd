"""A cluster of two nodes loses the one that hosts a teacher: the run ends on the other, with the same child."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.evolve.test_deaths import child, logged
from tests.evolve.test_same_child import PATIENCE, STEPS, command, reached

pytestmark = pytest.mark.long


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head of one core and a node of three: at least one teacher finds no room beside the driver."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=3)
    yield made
    made.shutdown()


def teachers_of(node: Any) -> list[psutil.Process]:
    """Processes of this node that host a teacher."""
    (raylet,) = node.all_processes["raylet"]
    workers = psutil.Process(raylet.process.pid).children(recursive=True)
    return [worker for worker in workers if " ".join(worker.cmdline()).startswith("ray::TeacherActor")]


def test_a_node_that_vanishes(
    climbed: Any, copy_of: Callable[..., Any], cluster: Any, tally: Callable[..., None]
) -> None:
    whole, struck = copy_of("whole"), copy_of("struck")
    (before,) = whole.evolve(child(whole, STEPS))
    assert before.verdict == "PROMOTED", before.detail
    (node,) = cluster.worker_nodes
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    log = struck.folder / "log"
    with log.open("wb") as said:
        run = subprocess.Popen(command(child(struck, STEPS), struck.home), env=environment, stdout=said, stderr=said)
        deadline = time.monotonic() + PATIENCE
        while reached(struck.home) < STEPS // 4:
            assert run.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert teachers_of(node), "the node hosts no teacher"
        cluster.remove_node(node, allow_graceful=False)
        assert run.wait(PATIENCE) == 0, log.read_text()
    same = struck.registry.head("Toy").digest == whole.registry.head("Toy").digest
    tally("a node with a teacher vanishes", tried=1, the_same_digest=int(same))
    assert same and logged(struck) == list(range(STEPS)) and struck.registry.verify("Toy") == []
    (notes,) = struck.home.glob("runs/Toy-G003/*/run.json")
    assert '"deaths": ' in notes.read_text(encoding="utf-8")
