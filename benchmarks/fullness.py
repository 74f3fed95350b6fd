"""``python benchmarks/fullness.py``: when is a model full? Families of several widths are taught until they hold no
more.

Each is a family of ``benchmarks/continual`` (the default recipe, domains of 80 facts, 400 steps each) whose model is
narrower; rows are kept in ``benchmarks/fullness.jsonl`` as they come. Families with space are those of
``benchmarks/continual`` itself, which has their rows.

A case is a family before its last lesson. It is full if that lesson, which a wider family learns, then costs more than
half of what it brings, and has space if at least 0.7 of it remains; ``--table`` prints what ``ladder plan`` would have
said before it, by ``ladder.planning.space``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.continual.climb import Cell, climb
from benchmarks.continual.facts import SIZE
from benchmarks.continual.methods import SIZES
from benchmarks.continual.run import add, done, read
from benchmarks.machine import describe_machine
from ladder.planning.space import FULL, Examined, Space, space_of

ROWS = Path(__file__).resolve().with_suffix(".jsonl")
WIDE = ROWS.with_name("continual") / "rows.jsonl"
SPACE = 0.7
"""What remains of a lesson at least where there is space for it."""


@dataclass(frozen=True)
class Case:
    """One family before its last lesson.

    Args:
        said: of the three children before it.
        remained: of the last lesson, what it cost taken off; any number up to 1.
    """

    family: str
    said: Space
    remained: float

    @property
    def truth(self) -> str:
        """What came of it; empty where it is neither."""
        return "full" if self.remained < FULL else "space" if self.remained >= SPACE else ""

    @property
    def right(self) -> bool:
        return self.said.full == (self.truth == "full")


def examined(row: Mapping[str, Any]) -> list[Examined]:
    """The children of a family, as their reports would say it: half of a domain's facts are asked for."""
    found = []
    for one in row["generations"]:
        new, asked = one["domain"], SIZE / 2
        lost = sum(one["before"][name] - value for name, value in one["accuracy"].items() if name != new)
        known = one["before"][new]
        learned = one["accuracy"][new] - known
        found.append(Examined(f"G{one['generation']:03}", asked * (1 - known), asked * learned, asked * lost))
    return found


def case_of(row: Mapping[str, Any]) -> Case:
    """Of a family that was taught to the end."""
    *before, last = examined(row)
    said = space_of(before)
    assert said is not None, "three lessons say something"
    return Case(Cell(**row["cell"]).key, said, (last.learned - last.lost) / last.asked)


def cases(rows: Path = ROWS, wide: Path = WIDE) -> list[Case]:
    """The narrow families, and as many wide ones by the default recipe."""
    narrow = [case_of(row) for row in read(rows)]
    default = [row for row in read(wide) if row["cell"]["method"] == "default" and row["cell"]["generations"] == 5]
    found = [one for one in narrow if one.truth]
    return found + [case_of(row) for row in default][: max(5, len(found))]


def table(found: Sequence[Case]) -> str:
    """In Markdown."""
    lines = ["| family | learned | lost | `plan` said | the next lesson | right |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {one.family} | {one.said.learned:.2f} | {one.said.lost:.2f} | {one.said.free:.2f}"
        f"{', full' if one.said.full else ''} | {one.remained:.2f}, {one.truth} | {'yes' if one.right else 'no'} |"
        for one in found
    ]
    return "\n".join(lines)


def size_named(layers: int, hidden: int) -> str:
    """The name under which a width stands among the sizes of ``benchmarks/continual``, where it is put."""
    name = f"{layers}x{hidden}"
    shape = {**SIZES["small"].architecture, "layers": layers, "hidden": hidden, "heads": max(1, hidden // 16)}
    SIZES[name] = replace(SIZES["small"], architecture=shape)
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and not there."""
    asked = _parser().parse_args(arguments)
    if asked.table:
        print(table(cases(asked.rows)))
        return 0
    machine = {name: value for name, value in describe_machine(asked.threads).items() if name != "command"}
    for seed in asked.seeds:
        for shape in asked.shapes:
            layers, hidden = (int(part) for part in shape.split("x"))
            cell = Cell("default", size_named(layers, hidden), seed, asked.generations)
            if cell.key in done(asked.rows):
                continue
            row: dict[str, Any] = climb(cell, asked.work, asked.threads)
            add(asked.rows, row | {"machine": machine})
            for one in row["generations"]:
                told = ", ".join(f"{name} {value:.2f}" for name, value in one["accuracy"].items())
                print(f"{cell.key} G{one['generation']}: {told}; {one['seconds']:.0f} s", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1x16", "1x32", "2x48"], help="layers x width")
    parser.add_argument("--table", action="store_true", help="run nothing; print the cases that there are")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--generations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(".ladder") / "fullness", help="where models lie")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
