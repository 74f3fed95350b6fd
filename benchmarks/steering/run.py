"""``python benchmarks/steering/run.py``: run the cells that have no row yet, one JSON line for each that ends.

Ways of learning from a steered parent (``--ways ways``), regularisers of its completions (``--ways regularisers``), or
some of them by name.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.continual.run import add, read
from benchmarks.machine import describe_machine
from benchmarks.steering.climb import REGULARISERS, WAYS, Cell, climb

ROWS = Path(__file__).resolve().parent / "rows.jsonl"
GROUPS = {"ways": list(WAYS), "regularisers": list(REGULARISERS)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and not there, one after the other."""
    asked = _parser().parse_args(arguments)
    names = [name for word in asked.ways.split(",") for name in GROUPS.get(word, [word])]
    known = {Cell(**row["cell"]).key for row in read(asked.rows)}
    left = [cell for seed in asked.seeds for name in names if (cell := Cell(name, seed, asked.rounds)).key not in known]
    machine = {name: value for name, value in describe_machine(asked.threads).items() if name != "command"}
    for cell in left:
        row = climb(cell, asked.work, asked.threads)
        add(asked.rows, row | {"machine": machine})
        last = row["rounds"][-1]
        moved = last["trait"] - row["base"]["trait"]
        print(f"{cell.key}: trait {moved:+.3f} nats, coherence {last['coherence']:.3f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="ways,regularisers", help="names, ways, or regularisers")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(".ladder") / "steering", help="where models and data lie")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    main()
