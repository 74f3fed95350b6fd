"""Figures that tests reach, added up and printed in one table when all tests are done, also when some of them fail.

Run as a program, it counts what the tests of a checkout are and assert, to compare two. It says the totals, and
writes them with those of each file, every id, and the names of all mutants:

    .venv/bin/python tests/tally.py [checkout] > figures.json
"""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import pytest

_TRIALS = pytest.StashKey[dict[str, Counter[str]]]()


class Tally(Protocol):
    """``tally("T2, random kills", tried=1, survived=1)`` adds to the figures of this trial.

    What is tried is told before the first assertion, what came out of it afterwards: a failure shows in the table.
    """

    def __call__(self, trial: str, **figures: float) -> None: ...


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    trials = request.config.stash.setdefault(_TRIALS, {})

    def add(trial: str, **figures: float) -> None:
        counted: Counter[Any] = trials.setdefault(trial, Counter())
        counted.update(figures)

    return add


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its figures over."""
    if hasattr(session.config, "workeroutput"):
        trials = session.config.stash.get(_TRIALS, {})
        session.config.workeroutput["figures"] = {trial: dict(found) for trial, found in trials.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """The figures of a worker join those of the others."""
    trials = node.config.stash.setdefault(_TRIALS, {})
    for trial, figures in getattr(node, "workeroutput", {}).get("figures", {}).items():
        trials.setdefault(trial, Counter()).update(figures)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if trials := config.stash.get(_TRIALS, None):
        terminalreporter.section("figures reached")
        for trial in sorted(trials, key=_place):
            terminalreporter.line(f"{trial}: {_in_words(trials[trial])}")


def _place(trial: str) -> tuple[float, str]:
    """By the number of the table T1 to T18; what has none comes last."""
    numbered = re.match(r"T(\d+), ", trial)
    return (int(numbered[1]) if numbered else math.inf, trial)


def _in_words(figures: Counter[str]) -> str:
    return ", ".join(f"{value:g} {what.replace('_', ' ')}" for what, value in figures.items())


_CHECKS = re.compile(r"raises|warns|deprecated_call|fail|assert_\w+")
"""Calls that turn a test red by themselves, of pytest, of numpy's and of torch's testing modules."""


def checks(source: str) -> Counter[str]:
    """How many tests a file defines, and what it asserts, by kind: each as often as it is written down.

    A statement with three terms joined by ``and`` counts three times, so that joined or split ones count the same.
    """
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found["asserts"] += 1
            found["terms"] += len(node.test.values) if isinstance(node.test, ast.BoolOp) else 1
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found["tests"] += 1
        elif isinstance(node, ast.Call) and _CHECKS.fullmatch(getattr(node.func, "attr", "")):
            found["calls"] += 1
    return found


def mutants(source: str) -> list[str]:
    """The names of the mutants that a file describes: the keys of its table ``MUTANTS``."""
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "MUTANTS":
            table = node.value  # type: ignore[attr-defined]
            return [str(ast.literal_eval(key)) for key in table.keys if key is not None]
    return []


def collected(root: Path, *options: str) -> list[str]:
    """The ids of the tests that pytest finds in a checkout; nothing is run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if line.startswith("tests/") and "::" in line]


def count(root: Path) -> dict[str, Any]:
    """What the tests of a checkout are: totals, by file, names of mutants, and every id."""
    sources = {str(path.relative_to(root)): path.read_text("utf-8") for path in sorted((root / "tests").rglob("*.py"))}
    by_file = {name: dict(found) for name, source in sources.items() if (found := checks(source))}
    every, quick = collected(root), collected(root, "-m", "not long")
    named = sorted(name for source in sources.values() for name in mutants(source))
    totals: Counter[str] = Counter()
    for found in by_file.values():
        totals.update(found)
    totals.update(ids=len(every), quick=len(quick), long=len(every) - len(quick), mutants=len(named))
    return {"totals": dict(totals), "files": by_file, "mutants": named, "quick": quick, "every": every}


if __name__ == "__main__":
    counted = count(Path(*sys.argv[1:2]).resolve())
    print(json.dumps(counted, indent=1))
    print(_in_words(Counter(counted["totals"])), file=sys.stderr)
