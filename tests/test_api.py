"""``import ladder``: which names it has, that they are described, and what importing it costs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import ladder
from ladder.errors import NotFound
from ladder.system.stopping import held
from tests.processes import BUSY

NAMES = [
    *("Event", "Family", "GateResult", "Generation", "LadderError", "Line", "Manifest", "Outcome", "Plan", "Step"),
    *("__version__", "evolve", "families", "family", "generation", "import_model", "load", "plan"),
]
"""Names that people's programs hold on to: one that goes away or changes its meaning breaks them."""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"


def test_the_names_are_those_that_the_page_describes() -> None:
    described = re.findall(r"^\| `ladder\.(\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dir(ladder) == ladder.__all__ == NAMES and sorted(described) == NAMES


def test_every_name_is_there_and_nothing_else_is() -> None:
    assert sorted([*ladder._FILE_OF, "__version__"]) == NAMES
    for name in NAMES:
        assert getattr(ladder, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'evolv'"):
        ladder.evolv  # noqa: B018


def test_a_name_stays_what_it_is_once_rooms_are_imported() -> None:
    """A file of the package that had the same name would take its place."""
    code = "import ladder.cli, ladder.spine, ladder; print(callable(ladder.evolve), callable(ladder.plan))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "True True\n"
    assert not any(Path(ladder.__path__[0], f"{name}{end}").exists() for name in NAMES for end in ("", ".py"))


def test_importing_it_takes_less_than_a_tenth_of_a_second() -> None:
    code = "import time; began = time.perf_counter(); import ladder; print(time.perf_counter() - began)"
    seconds = [
        float(subprocess.check_output([sys.executable, "-c", code], timeout=60)) for _ in range(3 if BUSY else 1)
    ]
    assert min(seconds) < 0.1, seconds


def test_a_run_in_a_thread_is_told_to_stop_by_nobody() -> None:
    """Signals can be handled in the main thread alone; schedulers and servers call from others."""
    asked = list[bool]()

    def run() -> None:
        with held() as stopped:
            asked.append(stopped())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert asked == [False]


def test_a_model_is_taken_in_as_a_generation(parent: Path, empty_home: Path, tmp_path: Path, capsys: Any) -> None:
    home = shutil.copytree(empty_home, tmp_path / "home")
    taken = ladder.import_model(parent, "Mine-G000", home=home, exam=False, quiet=True)
    assert (taken.is_head, capsys.readouterr().err) == (True, "") and ladder.family("Mine", home).head == taken
    with pytest.raises(NotFound, match="Mine-G000 has no report"):
        _ = taken.report
    with pytest.raises(NotFound, match="Mine-G000 is no generation of Kin"):
        _ = ladder.Family("Kin", taken._registry)["Mine-G000"]


def test_the_home_is_found_as_a_command_finds_it(empty_home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(empty_home, tmp_path / "project" / ".ladder")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="project/.ladder is the only one below"):
        assert ladder.families() == []
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(NotFound):
        ladder.families()
    assert ladder.families(tmp_path / "project") == []
