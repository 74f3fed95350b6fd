"""What answering costs: whole processes of the verbs that look, and of ``plan``, against one that only imports
MLflow's client. ``python benchmarks/verbs.py --beside CHECKOUT`` measures another checkout's code in turns with this.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CLIENT = "import of MlflowClient"
FAMILY = "Mine"
VERBS = {
    "families": ["families"],
    "lineage": ["lineage", FAMILY],
    "show": ["show", f"{FAMILY}@HEAD"],
    "verify": ["verify", FAMILY],
    "plan, of a broken manifest": ["plan", "broken.json"],
    "plan": ["plan", "001-child.json"],
    "--help": ["--help"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each, in turns")
    parser.add_argument("--beside", type=Path, action="append", default=[], help="another checkout of ladder")
    asked = parser.parse_args(arguments)
    from benchmarks.tables import render

    print(render(measured([ROOT, *(each.resolve() for each in asked.beside)], asked.rounds)))
    return 0


def measure(options: Any) -> dict[str, Any]:
    """The section of ``benchmarks/run.py``."""
    return measured([ROOT], 1 if options.quick else options.rounds)


def measured(checkouts: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Medians of CPU seconds (user and system) and of elapsed seconds of whole processes, run in turns.

    Args:
        checkouts: of ladder, whose code answers.
        rounds: how many processes of each.
    """
    taken: dict[tuple[str, Path], list[tuple[float, float]]] = {}
    with _project() as project:
        commands = {(CLIENT, ROOT): [sys.executable, "-c", "from mlflow import MlflowClient"]}
        for checkout in checkouts:
            for name, verb in VERBS.items():
                commands[name, checkout] = [sys.executable, "-m", "ladder", *verb]
        for _ in range(rounds):
            for (name, checkout), command in commands.items():
                if (cost := _process(command, checkout, project)) is not None:
                    taken.setdefault((name, checkout), []).append(cost)
    base = median(cpu for cpu, _ in taken[CLIENT, ROOT])
    rows = [
        {
            "verb": name,
            "checkout": "this" if checkout == ROOT else checkout.name,
            "CPU, s": round(median(cpu for cpu, _ in costs), 2),
            "elapsed, s": round(median(passed for _, passed in costs), 2),
            "of MlflowClient": round(median(cpu for cpu, _ in costs) / base, 2),
        }
        for (name, checkout), costs in taken.items()
    ]
    notes = [
        "whole processes in turns, medians; the ratio is of CPU seconds",
        f"a home of one generation; {rounds} rounds",
    ]
    return {"title": "What answering costs", "notes": notes, "rows": rows}


def _process(command: Sequence[str], checkout: Path, project: Path) -> tuple[float, float] | None:
    """CPU and elapsed seconds of a process; None where this checkout has no such verb."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(checkout), "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if "No such command" in said:
        return None
    if process.returncode not in (0, 2) or "Traceback" in said:
        raise RuntimeError(f"{command} ended with {process.returncode}: {said[-2000:]}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


@contextmanager
def _project() -> Iterator[Path]:
    """What ``ladder init`` writes, with an imported genesis that is in the home's cache."""
    from ladder.manifest import Name
    from ladder.manifest.schema import Architecture
    from ladder.models import fresh_model, save_model, train_tokenizer
    from ladder.registry import open_registry
    from ladder.setup import import_generation
    from ladder.verbs.init import create

    with tempfile.TemporaryDirectory(prefix="ladder-verbs-") as temporary:
        project, model = Path(temporary) / "mine", Path(temporary) / "model"
        create(project)
        (project / "broken.json").write_text('{"evolution_request": {"child_gen": "Mine-G001", "trainig_method": "x"}}')
        tokenizer = train_tokenizer([(project / "data" / "000.jsonl").read_text(encoding="utf-8")], 400)
        model.mkdir()
        save_model(
            model, fresh_model(Architecture(layers=2, hidden=96, heads=4, max_positions=64), tokenizer, 0), tokenizer
        )
        registry = open_registry(project / ".ladder")
        genesis = import_generation(registry, model, Name.parse(f"{FAMILY}-G000"), parent=None)
        registry.materialize(genesis)
        yield project


if __name__ == "__main__":
    sys.exit(main())
