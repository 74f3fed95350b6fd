"""``python benchmarks/continual/run.py``: run the cells that have no row yet, one JSON line for each that ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.continual.climb import Cell, climb, genesis
from benchmarks.continual.methods import ABLATIONS, FUSIONS, MAIN, METHODS, ON_POLICY, REHEARSALS, SIZES
from benchmarks.machine import commit, describe_machine

ROWS = Path(__file__).resolve().parent / "rows.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and not there; 1 if a cell failed."""
    asked = _parser().parse_args(arguments)
    cells = [Cell(method, asked.size, seed, asked.generations) for seed in asked.seeds for method in asked.methods]
    left = [cell for cell in cells if cell.key not in done(asked.rows)]
    print(f"{len(cells) - len(left)} of {len(cells)} cells are there, {len(left)} to run", flush=True)
    threads = max(1, (os.cpu_count() or 1) // asked.workers)
    machine, failed = {name: value for name, value in describe_machine(threads).items() if name != "command"}, 0
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
        # Every method starts from the genesis of its seed, so those come first.
        for seed in sorted({cell.seed for cell in left}):
            first = next(cell for cell in left if cell.seed == seed)
            pool.submit(genesis, first, asked.work, threads)
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
        waiting = {pool.submit(climb, cell, asked.work, threads): cell for cell in left}
        for future in as_completed(waiting):
            cell = waiting[future]
            try:
                row = future.result()
            except Exception:
                failed += 1
                print(f"{cell.key} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
                continue
            add(asked.rows, row | {"machine": machine, "workers": asked.workers, "commit": commit()})
            print(_line(row), flush=True)
    return int(failed > 0)


def done(rows: Path) -> set[str]:
    """Keys of the cells that have a row."""
    return {Cell(**row["cell"]).key for row in read(rows)}


def read(rows: Path) -> list[dict[str, Any]]:
    """All rows; a last line that was cut off counts as absent."""
    if not rows.is_file():
        return []
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def add(rows: Path, row: dict[str, Any]) -> None:
    """Append a row, after what was cut off is gone."""
    whole = "".join(json.dumps(known, ensure_ascii=False) + "\n" for known in [*read(rows), row])
    part = rows.with_suffix(".part")
    part.write_text(whole, encoding="utf-8")
    part.replace(rows)


def _line(row: dict[str, Any]) -> str:
    last = row["generations"][-1]
    new = last["accuracy"][last["domain"]]
    old = [value for name, value in last["accuracy"].items() if name != last["domain"]]
    seconds = sum(generation["seconds"] for generation in row["generations"])
    passed = sum(generation["promoted"] for generation in row["generations"])
    cell = Cell(**row["cell"])
    kept = sum(old) / len(old)
    return f"{cell.key}: newest {new:.3f}, older {kept:.3f}, {passed} of {cell.generations} pass, {seconds:.0f} s"


GROUPS = {"main": MAIN, "ablations": ABLATIONS, "rehearsals": REHEARSALS, "fusions": FUSIONS, "writing": ON_POLICY}
"""Methods that are named together."""


def methods_of(text: str) -> list[str]:
    """Names of methods, and of groups of them, as they stand on a command line."""
    names = [name for word in text.split(",") for name in GROUPS.get(word, (word,))]
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    groups = f"names, or {', '.join(GROUPS)}"
    parser.add_argument("--methods", type=methods_of, default=list(MAIN), metavar="A,B", help=groups)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2, 3, 4])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time; they share the cores")
    parser.add_argument("--work", type=Path, default=Path(".ladder") / "evidence", help="where models and data lie")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
