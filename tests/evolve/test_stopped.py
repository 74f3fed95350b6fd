"""Ctrl-C and SIGTERM in training, as a terminal sends them to the process group, a scheduler to every process; SIGKILL.

Random moments of everything else are tried in ``test_same_child.py``, and imports in ``tests/system/test_stopping.py``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from ladder.train.checkpoint import latest_step
from tests.processes import check_nobody_is_left, everybody, launch
from tests.tally import Tally

STEPS = 240
GO_ON = r"run the same command again to go on\)?\n"
TELLING = """
import sys
from ladder.report import live
from ladder.__main__ import main

live.EVERY = live._LOOK = 0.02
sys.exit(main())
"""
"""Ladder that tells of its steps while a toy takes them, which is over in a second."""
STOPPED = rf"ladder: stopped after step (\d+) of {STEPS}, with a checkpoint of it \({GO_ON}"


def test_a_training_that_is_stopped_and_killed_gives_the_same_generation(
    ray_session: None, toy: Any, tmp_path: Path, tally: Tally
) -> None:
    path = toy.manifest(
        0,
        "pretraining",
        training_params={"steps": STEPS, "lr": 0.003, "batch_size": 9},
        runtime={"checkpoint_every": 10 * STEPS, "threads": 1},
    )
    (whole,) = toy.evolve(path)
    assert whole.verdict == "PROMOTED", whole.detail
    other = type(toy)(toy.folder)
    other.home = tmp_path / "stopped"
    reached = [stopped_in_training(path, other.home, number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert 0 < reached[0] < reached[1] < STEPS
    killed_in_training(path, other.home)
    assert other.registry.head("Toy") is None and other.registry.generations("Toy") == []
    # In this process, where actors are; ``test_same_child.py`` starts the command again.
    (after,) = other.evolve(path)
    assert (after.verdict, after.exit_code) == ("PROMOTED", 0), after.detail
    (head,) = other.registry.generations("Toy")
    same = head.is_head and head.digest == toy.registry.head("Toy").digest
    tally("T7, Ctrl-C, SIGTERM and SIGKILL of the whole group in one run", tried=1, the_same_digest=same)
    assert same
    assert [step for step, _ in other.registry.step_metrics(head.run_id, "los")["s"]] == list(range(STEPS))


WHILE_RAY_STARTS = """
import os, signal, sys
from ray._private.node import Node
from ladder.actors.session import Session
from ladder.system.stopping import run

real = Node.start_raylet

def start_raylet(*given, **named):
    os.kill(os.getpid(), int(sys.argv[1]))
    return real(*given, **named)

def command():
    with Session() as session:
        return session.machine.cpus

Node.start_raylet = start_raylet
sys.exit(run(command))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_ray_starts(number: signal.Signals) -> None:
    """Ray would answer SIGTERM by itself from the beginning of its start."""
    command = [sys.executable, "-c", WHILE_RAY_STARTS, str(int(number))]
    process = launch(command, stderr=subprocess.PIPE)
    said = process.communicate(timeout=240)[1].decode()
    assert (process.returncode, said) == (128 + number, "ladder: stopped; run the same command again to go on\n")
    check_nobody_is_left(process.pid)


def started(path: Path, home: Path) -> subprocess.Popen[bytes]:
    """A run that has begun to train."""
    command = [sys.executable, "-c", TELLING, "evolve", str(path), "--home", str(home)]
    process = launch(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    read_until(process.stderr, f"/{STEPS}")
    return process


def killed_in_training(path: Path, home: Path) -> None:
    """Kill a run behind its last checkpoint. Ray's processes are in sessions of their own, and end all the same."""
    process = started(path, home)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    check_nobody_is_left(process.pid)


def stopped_in_training(path: Path, home: Path, number: signal.Signals) -> int:
    """Stop a run after some steps; the step of the checkpoint that it says it has, and has."""
    process = started(path, home)
    *_, said = stopped(process, number).splitlines(keepends=True)
    found = re.fullmatch(STOPPED, said)
    assert found, said
    (checkpoints,) = home.glob("runs/Toy-G000/*/checkpoints")
    assert latest_step(checkpoints) == int(found[1])
    return int(found[1])


def read_until(stream: IO[bytes], text: str) -> None:
    lines: list[str] = []
    while text not in (line := stream.readline().decode()):
        lines.append(line)
        assert line, "it ended before it trained: " + "".join(lines)


def stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> str:
    """Stop a launched process; what it says then, empty where it had ended before.

    SIGINT goes to its whole group, as from a terminal. SIGTERM goes to itself, to its group and to every process that
    belongs to it, which is all that ``timeout``, systemd and Slurm do.

    The exit code is the signal's, the last line says how to go on, nothing is a traceback, and nobody is left behind.
    """
    if process.poll() is None:
        if number == signal.SIGTERM:
            os.kill(process.pid, number)
        os.killpg(process.pid, number)
        for other in everybody(process.pid) if number == signal.SIGTERM else []:
            with suppress(OSError):
                os.kill(other.pid, number)
    _, heard = process.communicate(timeout=240)
    said = heard.decode()
    assert "Traceback" not in said and "Exception ignored" not in said, said
    check_nobody_is_left(process.pid)
    if process.returncode == 0:
        return ""
    assert process.returncode == 128 + number, said
    assert said.count("ladder: stopped") == 1 and re.search(f"{GO_ON}$", said), said
    return said
