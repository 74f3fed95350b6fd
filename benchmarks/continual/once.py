"""``python benchmarks/continual/once.py``: one generation again, in several ways, from a line that was climbed before.

A climb takes ten generations to show what a way of rehearsal does to a line that has slid. This trains its next child
alone, so that a way costs a minute. The line is that of a cell that ``run.py`` left in ``--work``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.continual.climb import Cell, write_request
from benchmarks.continual.facts import domains
from benchmarks.continual.generation import evolve
from benchmarks.continual.lessons import probes
from benchmarks.continual.methods import METHODS, SIZES, document
from benchmarks.continual.run import add, methods_of
from ladder.exam import Exam
from ladder.exam.ask import examine
from ladder.gates import measure

ROWS = Path(__file__).resolve().parent / "once.jsonl"


def once(cell: Cell, generation: int, method: str, work: Path, threads: int = 1) -> dict[str, Any]:
    """Train generation ``generation`` of a cell's line by another method; what it answers beside its parent.

    Raises:
        FileNotFoundError: the line is not there up to its parent.
    """
    torch.set_num_threads(threads)
    line, lessons = work / "cells" / cell.key, domains(cell.generations + 1)
    genesis = work / "genesis" / f"{cell.size}-{cell.seed}" / "candidate"
    ancestors = [genesis, *(line / f"g{number}" / "candidate" for number in range(1, generation))]
    if missing := [folder for folder in ancestors if not folder.is_dir()]:
        raise FileNotFoundError(f"{missing[0]}: run `python benchmarks/continual/run.py` for {cell.key} first")
    place = work / "once" / f"{cell.key}-{generation}" / method
    shutil.rmtree(place, ignore_errors=True)
    way = METHODS[method]
    request = write_request(place, document(way, SIZES[cell.size], cell.seed, generation), lessons[generation])
    cost = evolve(request, ancestors, place, threads, way.tail)
    asked = {one.name: tuple(probes(one)) for one in lessons[: generation + 1]}
    exam = Exam(recall=asked, generalize=(), decoding=request.manifest.gates.decoding)
    child, parent = (measure(exam, examine(folder, exam), None) for folder in (place / "candidate", ancestors[-1]))
    return {
        "line": cell.key,
        "generation": generation,
        "method": method,
        "domain": lessons[generation].name,
        "accuracy": child.recall_by,
        "before": parent.recall_by,
        "rehearsal": cost.plan.to_dict(),
        "seconds": round(cost.seconds, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--line", default="default", help="the method by which it was climbed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generation", type=int, default=9)
    parser.add_argument("--methods", type=methods_of, default=["default"], metavar="A,B")
    parser.add_argument("--work", type=Path, default=Path(".ladder") / "evidence")
    parser.add_argument("--rows", type=Path, default=ROWS)
    asked = parser.parse_args(arguments)
    for method in asked.methods:
        row = once(Cell(asked.line, "small", asked.seed, 10), asked.generation, method, asked.work)
        add(asked.rows, row)
        older = [value for name, value in row["accuracy"].items() if name != row["domain"]]
        print(f"{method}: newest {row['accuracy'][row['domain']]:.3f}, older {sum(older) / len(older):.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
