"""``python benchmarks/real/run.py``: run the cells that have no row yet, one JSON line for each that ends. A cell that
was cut off goes on after its last child."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.continual.run import add, read
from benchmarks.machine import commit, describe_machine
from benchmarks.real.climb import Cell, Climb, Ground
from benchmarks.real.methods import ABLATIONS, FEW, MAIN, METHODS, PEERS_MAIN, SIZES
from ladder.errors import LadderError
from manifests.smollm2.run import package_model

ROWS = Path(__file__).resolve().parent / "rows.jsonl"
SEEDS = 3
"""Of the methods that the acceptance is about; one of the others."""
OFTEN = ("default", "replay-long", "osf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and not there; 1 if a cell failed."""
    asked = _parser().parse_args(arguments)
    try:
        ground = Ground(asked.model or package_model(), asked.work.absolute() / "ground" / asked.size)
        ground.prepare()
    except LadderError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return error.exit_code
    left = [cell for cell in cells(asked) if cell.key not in done(asked.rows)]
    print(f"{len(left)} cells to run", flush=True)
    threads = max(1, (os.cpu_count() or 1) // asked.workers) if asked.threads is None else asked.threads
    with ProcessPoolExecutor(asked.workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(climbed, cell, ground, asked.work.absolute(), threads): cell for cell in left}
        return int(sum(_kept(asked, future, waiting[future], threads) for future in as_completed(waiting)) > 0)


def cells(asked: argparse.Namespace) -> list[Cell]:
    """What is asked for, in the order of the methods, the first seeds first; without seeds as many as each needs."""
    many = {method: asked.seeds or range(SEEDS if method in OFTEN else 1) for method in asked.methods}
    pairs = [(seed, method) for method, seeds in many.items() for seed in seeds]
    return [
        Cell(method, asked.size, seed, asked.generations) for seed, method in sorted(pairs, key=lambda pair: pair[0])
    ]


def climbed(cell: Cell, ground: Ground, work: Path, threads: int) -> dict[str, Any]:
    """A cell's row. Its weights are gone afterwards, and its manifests, rows and figures stay."""
    place = work / "cells" / cell.key
    row = Climb(cell, ground, place, threads).climb()
    for candidate in place.glob("g*/candidate"):
        shutil.rmtree(candidate)
    return row


def done(rows: Path) -> set[str]:
    """Keys of the cells that have a row."""
    return {Cell(**row["cell"]).key for row in read(rows)}


def _kept(asked: argparse.Namespace, future: Any, cell: Cell, threads: int) -> bool:
    """Write the row of a cell that ended; whether it failed."""
    try:
        row = future.result()
    except Exception:
        print(f"{cell.key} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return True
    machine = {name: value for name, value in describe_machine(threads).items() if name != "command"}
    add(asked.rows, row | {"machine": machine, "workers": asked.workers, "commit": commit()})
    print(_line(row), flush=True)
    return False


def _line(row: dict[str, Any]) -> str:
    last = row["generations"][-1]
    older = fmean(value for name, value in last["accuracy"].items() if name != last["domain"])
    seconds = sum(generation["seconds"] for generation in row["generations"])
    passed = sum(generation["promoted"] for generation in row["generations"])
    newest, key = last["accuracy"][last["domain"]], Cell(**row["cell"]).key
    return f"{key}: newest {newest:.3f}, older {older:.3f}, {passed} pass, {seconds:.0f} s"


def _methods(text: str) -> list[str]:
    groups = {"main": list(MAIN), "ablations": list(ABLATIONS), "peers": list(PEERS_MAIN), "few": list(FEW)}
    names = [name for word in text.split(",") for name in groups.get(word, [word])]
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    groups = "names, main, peers, ablations or few"
    parser.add_argument("--methods", type=_methods, default=list(METHODS), metavar="A,B", help=groups)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=None)
    parser.add_argument("--size", choices=list(SIZES), default="smollm2")
    parser.add_argument(
        "--model", type=Path, default=None, help="what is imported, where it is not the package's SmolLM2"
    )
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time; they share the cores")
    parser.add_argument("--threads", type=int, default=None, help="of each cell; its part of the cores when left out")
    parser.add_argument(
        "--work", type=Path, default=Path(".ladder") / "evidence-real", help="where models and data lie"
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
