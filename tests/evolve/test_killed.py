"""SIGKILL of the whole process group in the middle of training; the same command finishes with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.processes import check_nobody_is_left, launch
from tests.tally import Tally

STEPS = {"steps": 60, "lr": 0.003, "batch_size": 9}


def test_kill_and_run_again_gives_the_same_generation(
    ray_session: None, toy: Any, tmp_path: Path, tally: Tally
) -> None:
    path = toy.manifest(0, "pretraining", training_params=STEPS, runtime={"checkpoint_every": 5, "threads": 1})
    (whole,) = toy.evolve(path)
    assert whole.verdict == "PROMOTED", whole.detail
    home = tmp_path / "killed"
    kill_after_first_checkpoint([sys.executable, "-m", "ladder", "evolve", str(path), "--home", str(home)], home)
    killed = type(toy)(toy.folder)
    killed.home = home
    # In this process, where actors are; ``test_same_child.py`` starts the command again.
    (again,) = killed.evolve(path)
    assert (again.verdict, again.exit_code) == ("PROMOTED", 0), again.detail
    generations = killed.registry.generations("Toy")
    assert [(known.ref, known.is_head) for known in generations] == [("Toy-G000", True)]
    same = generations[0].digest == toy.registry.head("Toy").digest
    tally("T7, SIGKILL of the whole group after a checkpoint", tried=1, the_same_digest=same)
    assert same


def kill_after_first_checkpoint(command: list[str], home: Path) -> None:
    """Ray's processes are in sessions of their own, and end all the same."""
    process = launch(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(home.glob("runs/Toy-G000/*/checkpoints/step-*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    check_nobody_is_left(process.pid)
