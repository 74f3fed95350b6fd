"""The sections that need neither TRL nor Ray run from the command line, at sizes that mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.process import in_subprocess

ROOT = Path(__file__).parents[2]


WANTED = {
    "loss": {"floor", "ladder, agreement routing", "dense reference, agreement routing"},
    "memory": {"ladder, two teachers", "dense reference"},
    "teachers": set(),
    "step": {"ideal: backbones, 5 products, AdamW", "the seed's literal loop, EMA", "ladder, agreement routing, EMA"},
    "cache": {"plain fine-tuning + 2 head products", "ladder, cached in memory", "ladder, cached on disk"},
    "wire": {"SmolLM2-135M"},
    "base": {"three whole models", "one base, three adapters"},
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    # One thread for OpenMP as well: with two that spin, tiny products take long on a busy machine. Nothing is compiled,
    # which would take longer than everything else.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a quick run of every section prints and writes."""
    folder = tmp_path_factory.mktemp("quick")
    options = ["--quick", "--rounds", "1", "--threads", "1", "--no-ray", "--no-trl", "--out", "results.json"]
    done = run(folder, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "results.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("section", WANTED)
def test_a_section_prints_its_table_and_writes_it(section: str, quick: tuple[str, dict[str, Any]]) -> None:
    printed, written = quick
    names = {value for row in written[section]["rows"] for value in row.values() if isinstance(value, str)}
    assert WANTED[section] <= names
    assert all(name in printed for name in WANTED[section])


@pytest.mark.long
def test_the_machine_is_written_down(quick: tuple[str, dict[str, Any]]) -> None:
    machine = quick[1]["machine"]
    assert machine["threads"] == 1
    assert {"cpu", "cores", "versions", "command"} <= machine.keys()


@pytest.mark.long
def test_a_figure_comes_from_a_process_of_its_own() -> None:
    task = {"name": "dense reference", "tokens": 64, "hidden": 32, "vocabulary": 512, "threads": 1}
    assert in_subprocess("benchmarks.memory", task)["inputs"] > 0


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)json\.tool ended with 2: .*No such file"):
        in_subprocess("json.tool", {"no": "file"})


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--only", "loss,speed")
    assert done.returncode == 2
    assert "'speed' is no section" in done.stderr
