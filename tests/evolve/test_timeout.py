"""``timeout -s TERM`` at ten moments of one training: it tells the command, and then the command's whole group."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ladder.train.checkpoint import latest_step
from tests.evolve.test_stopped import read_until
from tests.processes import check_nobody_is_left, launch
from tests.tally import Tally

pytestmark = pytest.mark.long
MOMENTS, STEPS = 10, 8000


def timed_out(path: Path, home: Path, seconds: float) -> str:
    """What a run says that ``timeout`` ends so long after its rows are known, which is when its training begins.

    Told to end, ``timeout`` does what it does when the time is over, so the moment can be chosen here.
    """
    command = [sys.executable, "-m", "ladder", "evolve", str(path), "--home", str(home)]
    timeout = ["timeout", "--preserve-status", "-s", "TERM", "3600"]
    process = launch([*timeout, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        read_until(process.stderr, " rows, ")
        time.sleep(seconds)
        process.terminate()
        said = str(process.communicate(timeout=240)[1].decode())
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in said, said
    check_nobody_is_left(process.pid)
    return said


def test_timeout_at_ten_moments(toy: Any, tmp_path: Path, tally: Tally) -> None:
    training = {"steps": STEPS, "lr": 0.003, "batch_size": 9}
    runtime = {"checkpoint_every": 10 * STEPS, "threads": 1}
    path, draw = toy.manifest(0, "pretraining", training_params=training, runtime=runtime), random.Random(2)
    trial, before, in_training = "T7, timeout -s TERM at random moments", 0, 0
    for _ in range(MOMENTS):
        said = timed_out(path, toy.home, draw.uniform(0.0, 6.0))
        told = re.search(rf"^ladder: stopped after step (\d+) of {STEPS}, with a checkpoint of it", said, re.MULTILINE)
        (checkpoints,) = toy.home.glob("runs/Toy-G000/*/checkpoints")
        kept = latest_step(checkpoints)
        tally(trial, tried=1, in_training=told is not None, kept=kept == (int(told[1]) if told else before))
        assert kept == (int(told[1]) if told else before) and "ladder: stopped" in said, said
        assert kept > before or not told
        before, in_training = kept, in_training + bool(told)
    assert in_training >= MOMENTS - 3
    # Every step whose report came is one behind a checkpoint: none is lost.
    (notes,) = toy.home.glob("runs/Toy-G000/*/run.json")
    run_id = json.loads(notes.read_text(encoding="utf-8"))["mlflow_run"]
    assert [step for step, _ in toy.registry.step_metrics(run_id, "los")["s"]] == list(range(before))
