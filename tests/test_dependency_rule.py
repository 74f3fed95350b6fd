"""The dependency rule: which room may import which, read from the source with `ast` and seen in fresh processes.

An import counts wherever it stands: at the top, inside a function, under TYPE_CHECKING, or as
`import_module("name")`.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import BUSY

ROOT = Path(__file__).resolve().parent.parent
# Nothing but these, the standard library and the room itself: {room: (rooms of ladder, other distributions)}.
CLOSED = {
    "errors": (set(), set()),
    "manifest": ({"errors"}, {"pydantic", "pydantic_core", "yaml"}),
    "distill": ({"errors"}, {"torch"}),
}
# Who may import what starts a cluster or opens a store: {module: rooms}.
ONLY_IN = {
    "ray": {"actors", "jobs", "submit", "doctor"},
    "mlflow": {"registry", "ui", "doctor"},
}
# These know neither Ray nor MLflow, so they import one another and no room that might.
PLAIN = {"errors", "manifest", "distill", "signals", "train", "gates", "data", "models", "methods", "pricing"}
# Names of the checkout's top level: importable there, absent once installed.
UNINSTALLED = {"cli", "jobs", "manifests", "benchmarks", "tests"}


@dataclass(frozen=True)
class Import:
    """One import: the room it stands in, where, and the full name of what it imports."""

    room: str
    place: str
    target: str

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]

    @property
    def ladder_room(self) -> str | None:
        """The room of ladder that is imported; None for another package, `ladder` itself or its version."""
        package, _, rest = self.target.partition(".")
        room = rest.partition(".")[0]
        return room if package == "ladder" and room not in {"", "__version__"} else None


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module, with cli.py and jobs/ under the names that they have when installed."""
    links = {root / "ladder" / "cli.py", root / "ladder" / "jobs"}
    package = [path for path in sorted((root / "ladder").rglob("*.py")) if links.isdisjoint([path, *path.parents])]
    yield from ((_dotted(path.relative_to(root)), path) for path in package)
    for path in [root / "cli.py", *sorted((root / "jobs").rglob("*.py"))]:
        yield _dotted("ladder" / path.relative_to(root)), path


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The full name of what `from X import ...` imports from, with leading dots resolved against the module."""
    if not node.level:
        return node.module or ""
    base = module.split(".")[: -node.level]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_dynamic(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    return name in {"import_module", "__import__"}


def _targets(module: str, node: ast.AST) -> list[str]:
    """What a node imports; `from ladder import cli` is `ladder.cli`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = _absolute(module, node)
        return [f"{origin}.{alias.name}" for alias in node.names] if origin == "ladder" else [origin]
    if isinstance(node, ast.Call) and _is_dynamic(node):
        values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        return [value for value in values if isinstance(value, str)]
    return []


def _imports(root: Path) -> list[Import]:
    found = []
    for module, path in _sources(root):
        room = module.split(".")[1]
        for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
            place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            found += [Import(room, place, target) for target in _targets(module, node)]
    return found


def _breach(found: Import) -> str | None:
    """Why an import breaks the rule, or None."""
    room, package, other = found.room, found.package, found.ladder_room
    if package in UNINSTALLED:
        return f"`{package}` is not importable once installed; its name is `ladder.{package}`"
    if other == "cli" and room != "__main__":
        return "nothing imports the command line"
    if package in ONLY_IN and room not in ONLY_IN[package]:
        return f"only {sorted(ONLY_IN[package])} import {package}"
    if room in PLAIN and other is not None and other not in PLAIN:
        return f"{room} knows neither Ray nor MLflow; {other} is not among the rooms that promise the same"
    return _closed_breach(room, package, other)


def _closed_breach(room: str, package: str, other: str | None) -> str | None:
    rooms, packages = CLOSED.get(room, (None, None))
    if rooms is None or packages is None or package in sys.stdlib_module_names:
        return None
    if package == "ladder":
        return None if other in {room, *rooms} else f"{room} imports only {sorted(rooms)} of ladder"
    return None if package in packages else f"{room} imports only {sorted(packages)} besides the standard library"


def breaches(root: Path) -> list[str]:
    """Every import under root that breaks the rule, as `file:line imports name: reason`."""
    checked = [(found, _breach(found)) for found in _imports(root)]
    return [f"{found.place} imports {found.target}: {reason}" for found, reason in checked if reason]


def test_the_tree_obeys_the_rule() -> None:
    assert breaches(ROOT) == []


def test_every_room_of_the_rule_exists() -> None:
    """A renamed room would leave its row of the tables without effect."""
    rooms = {module.split(".")[1] for module, _ in _sources(ROOT)}
    named = {*CLOSED, *PLAIN, *(room for rooms in ONLY_IN.values() for room in rooms)}
    assert named - rooms == set()


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
    "ladder/methods/other.py": "from .. import evolve",
    "ladder/evolve.py": "from ladder import cli",
    "ladder/planning/plan.py": "import cli",
    "ladder/report/html.py": "__import__('mlflow')",
    "ladder/registry/store.py": "import ray",
    "ladder/actors/teacher.py": "import mlflow",
    "cli.py": "def evolve():\n    import ray",
    "jobs/evolve.py": "from ladder.cli import app",
}


@pytest.mark.parametrize("path", VIOLATIONS)
def test_a_planted_violation_is_found(path: str, tmp_path: Path) -> None:
    _plant(tmp_path, {"cli.py": "", path: VIOLATIONS[path]})
    (breach,) = breaches(tmp_path)
    assert breach.startswith(f"{path}:")


def test_what_the_rule_allows_is_not_reported(tmp_path: Path) -> None:
    allowed = {
        "cli.py": "import typer\nfrom ladder import errors\ndef evolve():\n    from ladder.evolve import evolve",
        "ladder/__main__.py": "from ladder.cli import main",
        "ladder/manifest/load.py": "import yaml, json\nfrom ladder.errors import ManifestError\nfrom . import schema",
        "ladder/distill/loss.py": "import math, torch.nn\nfrom ..errors import DataError\nfrom .masks import mask",
        "ladder/actors/teacher.py": "import ray\nfrom ladder.teachers import wire",
        "ladder/registry/store.py": "from mlflow import MlflowClient",
        "ladder/models/save.py": "from ladder import __version__",
        "jobs/evolve.py": "import ray\nfrom ladder.evolve import evolve",
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
