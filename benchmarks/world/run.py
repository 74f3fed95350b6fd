"""``python benchmarks/world/run.py``: what are weights of teachers worth, where the truth is known?

One line of ``rows.jsonl`` for each student, and what has one is not trained again; tables are printed, and stand
between their marks in ``docs/fusion.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.continual.figures import Interval
from benchmarks.continual.report import between
from benchmarks.world.bigram import World
from benchmarks.world.learning import STEPS, Learned, Teachers, Way, learn
from benchmarks.world.student import shared_head
from ladder.distill.fusion import FusionSettings
from ladder.system.files import save_text

ROWS = Path(__file__).with_name("rows.jsonl")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "fusion.md"
SEEDS = 5
UNEQUAL, EQUAL = (0.1, 0.5, 2.0), (0.5, 0.5, 0.5)
GOOD = 0.3
"""Logit noise of sources of which one is poisoned."""
REPAIRED_AT, REGAINED = 100, 0.8
"""The step from which on a poisoned source says the truth, and the throttle at which it has its weight again."""

THROTTLED = ("poisoned at 50", "good, least", "steps to 0.3")

CONFIDENCE, MEAN, PRECISION = (Way(FusionSettings(word)) for word in ("confidence", "mean", "precision"))
SOFTER = Way(FusionSettings("precision", rho=0.7))
KNOWN = Way(FusionSettings("mean"), known=tuple(noise**-2 for noise in UNEQUAL))
CONFIDENCE_THROTTLED, MEAN_THROTTLED, PRECISION_THROTTLED = (
    Way(FusionSettings(word, throttle=True)) for word in ("confidence", "mean", "precision")
)


def noisy(world: World, seed: int, noises: Sequence[float]) -> Teachers:
    return Teachers(tuple(world.noisy(noise, 10 * seed + place) for place, noise in enumerate(noises)))


def good(world: World, seed: int) -> Teachers:
    return noisy(world, seed, (GOOD, GOOD))


def poisoned(world: World, seed: int) -> Teachers:
    return Teachers((*good(world, seed).logits, world.poisoned(GOOD, 10 * seed + 2)))


def repaired(world: World, seed: int) -> Teachers:
    return Teachers(poisoned(world, seed).logits, world.noisy(GOOD, 10 * seed + 2), REPAIRED_AT)


@dataclass(frozen=True)
class Table:
    """One question: who teaches, whose head the student shares, and ways of fusing under the names of its lines."""

    title: str
    columns: tuple[str, ...]
    lines: Mapping[str, tuple[Callable[[World, int], Teachers], Way]]
    head: Callable[[World, int], Teachers]


def _noises(noises: Sequence[float], ways: Mapping[str, Way]) -> Mapping[str, Any]:
    return {name: (lambda world, seed: noisy(world, seed, noises), way) for name, way in ways.items()}


def _table(title: str, noises: Sequence[float], ways: Mapping[str, Way]) -> Table:
    lines = _noises(noises, ways)
    return Table(title, ("target", "student"), lines, lambda world, seed: noisy(world, seed, noises))


TABLES = {
    "unequal": _table(
        "logit noise 0.1, 0.5 and 2.0",
        UNEQUAL,
        {
            "confidence": CONFIDENCE,
            "confidence, throttle": CONFIDENCE_THROTTLED,
            "mean": MEAN,
            "precision": PRECISION,
            "precision, rho 0.7": SOFTER,
            "weights 1 / noise^2": KNOWN,
        },
    ),
    "equal": _table("logit noise 0.5 each", EQUAL, {"confidence": CONFIDENCE, "mean": MEAN, "precision": PRECISION}),
    "poison": Table(
        "two good sources and a poisoned one",
        ("target", "student", *THROTTLED),
        {
            "mean, without the poison": (good, MEAN),
            "mean": (poisoned, MEAN),
            "mean, throttle": (poisoned, MEAN_THROTTLED),
            "confidence, throttle": (poisoned, CONFIDENCE_THROTTLED),
            "precision, without the poison": (good, PRECISION),
            "precision": (poisoned, PRECISION),
            "precision, throttle": (poisoned, PRECISION_THROTTLED),
        },
        good,
    ),
    "repaired": Table(
        "two good sources and one that is repaired at step 100",
        ("target", "student", *THROTTLED, "steps back to 0.8"),
        {
            "mean, throttle, repaired": (repaired, MEAN_THROTTLED),
            "precision, throttle, repaired": (repaired, PRECISION_THROTTLED),
        },
        good,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what has no row yet, print tables, and write them into a page that was named."""
    asked = _parser().parse_args(arguments)
    rows = read(asked.rows)
    for name in asked.tables:
        start = time.monotonic()
        tasks = [(name, line, seed, asked.steps) for line in TABLES[name].lines for seed in range(asked.seeds)]
        there = {task_of(one): one for one in rows}
        for one in spread([task for task in tasks if task not in there], asked.workers):
            rows.append(one)
            save_text(asked.rows, "".join(json.dumps(one) + "\n" for one in rows))
        there = {task_of(one): one for one in rows}
        found, seconds = [there[task] for task in tasks], time.monotonic() - start
        print(f"\n{TABLES[name].title}, {asked.seeds} seeds, {seconds:.0f} s\n\n{markdown(name, found)}", flush=True)
    if asked.document is not None:
        text = asked.document.read_text(encoding="utf-8")
        for name in asked.tables:
            mine = [one for one in rows if one["table"] == name and one["steps"] == asked.steps]
            text = between(text, name, markdown(name, mine))
        save_text(asked.document, text)
    return 0


Task = tuple[str, str, int, int]
"""Table, line, seed and steps of a student."""


def task_of(row: Mapping[str, Any]) -> Task:
    return row["table"], row["line"], row["seed"], row["steps"]


def spread(tasks: Sequence[Task], workers: int) -> Iterator[dict[str, Any]]:
    """The rows of these tasks as they come, made in so many processes of their own, or in this one."""
    if workers == 1 or not tasks:
        yield from map(row, tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(row, tasks)


def row(task: Task) -> dict[str, Any]:
    """One student of one line of a table."""
    name, line, seed, steps = task
    torch.set_num_threads(1)
    world, table = World.of(seed), TABLES[name]
    speakers, way = table.lines[line]
    start, teachers = time.monotonic(), speakers(world, seed)
    learned = learn(world, teachers, way, shared_head(table.head(world, seed).logits), seed, steps)
    figures = {"target": learned.target, "student": learned.student, **throttles(learned, teachers, way)}
    said = {"table": name, "line": line, "seed": seed, "steps": steps, "entropy": world.entropy_rate()}
    return said | figures | {"seconds": round(time.monotonic() - start, 1)}


def throttles(learned: Learned, teachers: Teachers, way: Way) -> dict[str, float | None]:
    """How the last source was throttled, and the least that any other was; nothing where nobody is."""
    if not way.fusion.throttle:
        return {}
    last, others = [factors[-1] for factors in learned.factors], [min(step[:-1]) for step in learned.factors]
    found: dict[str, float | None] = {"good, least": min(others)}
    found["steps to 0.3"] = next((step for step, factor in enumerate(last, 1) if factor <= 0.3), None)
    if len(last) >= 50:
        found["poisoned at 50"] = last[49]
    if teachers.repaired is not None:
        after = last[teachers.repaired_at :]
        found["steps back to 0.8"] = next((step for step, factor in enumerate(after, 1) if factor >= REGAINED), None)
    return found


def markdown(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each way, a mean over seeds with its 95% interval in each cell."""
    table = TABLES[name]
    lines = [["weights", *table.columns], ["---"] * (1 + len(table.columns))]
    for line in table.lines:
        mine = [one for one in rows if one["line"] == line]
        lines.append([line, *(_cell([one.get(column) for one in mine], column) for column in table.columns)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(values: Sequence[float | None], column: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = Interval.of(known).text(0 if "steps" in column else 2 if column not in ("target", "student") else 4)
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=lambda text: text.split(","), default=list(TABLES), metavar="A,B")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--document", type=Path, nargs="?", const=DOCUMENT, help="put the tables into this page, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
