"""The dependency rule: rooms have an order and import downwards; read from the source and seen in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.house import ORDER, Import, cycles, imports, measured, sources, upward
from tests.processes import BUSY

ROOT = Path(__file__).resolve().parent.parent
# Nothing but these and the standard library besides what the order allows: {room: other distributions}.
CLOSED = {
    "errors": set(),
    "system": {"psutil", "safetensors", "torch"},
    "manifest": {"pydantic", "pydantic_core", "yaml"},
    "distill": {"torch"},
}
# Who may import what starts a cluster or opens a store: {distribution: rooms or modules}.
ONLY_IN = {
    "ray": {"actors", "jobs", "verbs.submit", "verbs.doctor"},
    "mlflow": {"registry", "verbs.ui", "verbs.doctor"},
}
# Rooms that know no more of ladder than these, whatever stands below them.
ALONE = {"distill": {"errors"}, "manifest": {"errors"}, "system": {"errors"}}
# Names of the checkout's top level: importable there, absent once installed.
UNINSTALLED = {"cli", "jobs", "manifests", "benchmarks", "tests"}
# What tests/house.py measures may not grow past this.
LIMITS = {
    "files at the top of ladder/": 15,
    "files per 1,000 lines": 5.5,
    # Each verb, and each call of ladder/api.py, imports what it needs inside itself, so that others pay for none of it.
    "imports of ladder's own modules per 1,000 lines": 27,
    "lines of a function, 90th percentile": 20,
    "imports of a room that stands higher": 0,
    "groups of files that import each other": 0,
}


def _breach(found: Import) -> str | None:
    """Why an import breaks the rule, or None."""
    room, package, other = found.room, found.package, found.ladder_room
    if package in UNINSTALLED:
        return f"`{package}` is not importable once installed; its name is `ladder.{package}`"
    if package in ONLY_IN and ONLY_IN[package].isdisjoint({room, ".".join(found.module.split(".")[1:3])}):
        return f"only {sorted(ONLY_IN[package])} import {package}"
    if upward([found]):
        return f"{room} stands below {other}, or one of them has no place in the order"
    if other is not None:
        allowed = ALONE.get(room)
        known = allowed is None or other in {room, *allowed}
        return None if known else f"{room} imports only {sorted(allowed or ())} of ladder"
    if room in CLOSED and package not in sys.stdlib_module_names | CLOSED[room] | {"ladder"}:
        return f"{room} imports only {sorted(CLOSED[room])} besides the standard library"
    return None


def breaches(root: Path) -> list[str]:
    """Every import under root that breaks the rule, as `file:line imports name: reason`."""
    checked = [(found, _breach(found)) for found in imports(root)]
    return [f"{found.place} imports {found.target}: {reason}" for found, reason in checked if reason]


def test_the_tree_obeys_the_rule() -> None:
    assert breaches(ROOT) == []


def test_no_two_files_import_each_other() -> None:
    assert cycles(imports(ROOT), {module for module, _ in sources(ROOT)}) == []


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    planted = {
        "a": "from ladder.data import b",
        "b": "import ladder.data.c",
        "c": "def f(): from ladder.data.a import g",
    }
    _plant(tmp_path, {"cli.py": ""} | {f"ladder/data/{name}.py": text for name, text in planted.items()})
    modules = {module for module, _ in sources(tmp_path)}
    assert cycles(imports(tmp_path), modules) == [["ladder.data.a", "ladder.data.b", "ladder.data.c"]]


def test_the_house_stays_within_its_limits() -> None:
    found = measured(ROOT)
    assert {name: found[name] for name, limit in LIMITS.items() if found[name] > limit} == {}


def test_every_room_of_the_rule_exists() -> None:
    """A renamed room would leave its row of the tables without effect."""
    rooms = {Import(module, "", "").room for module, _ in sources(ROOT)}
    named = {*CLOSED, *ALONE, *(room.partition(".")[0] for rooms in ONLY_IN.values() for room in rooms)}
    assert named - rooms == set() and rooms == set(ORDER)


VIOLATIONS = {
    "ladder/errors.py": "import ladder.manifest",
    "ladder/manifest/schema.py": "import torch",
    "ladder/manifest/load.py": "from ladder.models import digest",
    "ladder/distill/loss.py": "def f():\n    from ladder.teachers import wire",
    "ladder/distill/deep/routing.py": "from ...data import rows",
    "ladder/distill/masks.py": "from transformers import AutoModel",
    "ladder/teachers/cache.py": "import mlflow.tracking",
    "ladder/train/step.py": "def f():\n    import ray",
    "ladder/gates/tone.py": "import importlib\nimportlib.import_module('ray.util')",
    "ladder/data/rows.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ray import ObjectRef",
    "ladder/models/load.py": "from ladder import registry",
    "ladder/methods/base.py": "from ..actors.student import Student",
    "ladder/methods/other.py": "from .. import spine",
    "ladder/spine.py": "from ladder import cli",
    "ladder/planning/plan.py": "import cli",
    "ladder/report/html.py": "__import__('mlflow')",
    "ladder/report/console.py": "if TYPE_CHECKING:\n    from ladder.spine import Outcome",
    "ladder/registry/store.py": "import ray",
    "ladder/actors/teacher.py": "import mlflow",
    "cli.py": "def evolve():\n    import ray",
    "jobs/evolve.py": "from ladder.cli import app",
    "ladder/models/folder.py": "def f():\n    from ladder.data.rows import Row",
    "ladder/exam/lint.py": "from ladder.gates import decide",
    "ladder/report/verdict.py": "from ladder.spine import Outcome",
    "ladder/manifest/names.py": "from ladder.system.files import sync",
    "ladder/verbs/ui.py": "import ray",
    "ladder/attic/old.py": "from ladder.errors import LadderError",
}


@pytest.mark.parametrize("path", VIOLATIONS)
def test_a_planted_violation_is_found(path: str, tmp_path: Path) -> None:
    _plant(tmp_path, {"cli.py": "", path: VIOLATIONS[path]})
    (breach,) = breaches(tmp_path)
    assert breach.startswith(f"{path}:")


def test_what_the_rule_allows_is_not_reported(tmp_path: Path) -> None:
    allowed = {
        "cli.py": "import typer\nfrom ladder import errors\ndef evolve():\n    from ladder.spine import evolve",
        "ladder/__main__.py": "from ladder.cli import main",
        "ladder/manifest/load.py": "import yaml, json\nfrom ladder.errors import ManifestError\nfrom . import schema",
        "ladder/distill/loss.py": "import math, torch.nn\nfrom ..errors import DataError\nfrom .masks import mask",
        "ladder/actors/teacher.py": "import ray\nfrom ladder.teachers import wire",
        "ladder/registry/store.py": "from mlflow import MlflowClient",
        "ladder/verbs/submit.py": "def f():\n    from ray.job_submission import JobSubmissionClient",
        "ladder/laws/monitor.py": "from ladder.train.spec import StepReport",
        "ladder/models/save.py": "from ladder import __version__",
        "jobs/evolve.py": "import ray\nfrom ladder.spine import evolve",
    }
    _plant(tmp_path, allowed)
    assert breaches(tmp_path) == []


def _plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ladder", {"pydantic", "torch", "ray", "mlflow", "transformers", "typer"}),
        ("ladder.manifest", {"torch", "ray", "mlflow", "transformers"}),
        ("ladder.distill", {"ray", "mlflow", "transformers"}),
        ("ladder.cli", {"torch", "ray", "mlflow", "transformers", "matplotlib"}),
    ],
)
def test_importing_a_room_leaves_the_heavy_libraries_alone(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert absent & set(done.stdout.split()) == set()


def test_help_answers_in_under_half_a_second() -> None:
    """The median of five. Beside other work the best of five: load must not fail a sound change."""
    seconds = [_seconds_of_help() for _ in range(5)]
    figure = min(seconds) if BUSY else statistics.median(seconds)
    assert figure < 0.5, seconds


def _seconds_of_help() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ladder", "--help"], capture_output=True, timeout=120, check=True)
    return time.perf_counter() - start
