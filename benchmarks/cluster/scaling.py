"""Whole trainings with 1, 2 and 4 ranks, 1 and 2 teachers, 1 and 2 replicas of each, at equal work; beside each the
simulation, from the pieces of one step measured alone; and the exponent by which a step grows with the ranks.

All processes share this machine's cores. So nothing can become faster here: what is seen is what more processes cost.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks.cluster.simulate import Costs, Layout, Node, simulate
from benchmarks.options import Options

ROWS = 8
LOOPBACK = 1e9
"""Bytes a second that gloo exchanges between processes of one machine; assumed."""
CALL = 2e-3
"""Seconds of an actor's call beside its work; assumed."""
FORGOTTEN = 4
"""Steps at either end of a training that are left out: the pipeline fills and drains, and memory is first touched."""


class Cell(NamedTuple):
    """One training."""

    ranks: int
    teachers: int
    replicas: int


CELLS = (Cell(1, 1, 1), Cell(1, 2, 1), Cell(1, 2, 2), Cell(2, 1, 1), Cell(2, 2, 1), Cell(2, 2, 2), Cell(4, 2, 1))


@dataclass(frozen=True)
class Family:
    """Two generations in a folder that have no replay to read, and children that differ in their runtime alone."""

    folder: Path
    steps: int
    hidden: int
    layers: int
    threads: int

    def genesis(self) -> list[Path]:
        words = [f"{a}{b}" for a in "bdfghklmnprstvw" for b in ("ado", "ile", "une", "ema", "oki")]
        draw = random.Random(0)
        lines = [{"text": " ".join(draw.choices(words, k=120))} for _ in range(160)]
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        shape = {"layers": self.layers, "hidden": self.hidden, "heads": 4, "vocab_size": 400, "max_positions": 512}
        first = self._write(0, {"training_method": "pretraining"}, 2, student={"architecture": shape})
        return [first, self._write(1, {"training_method": "continual_pretraining", "parent_gen": _name(0)}, 2)]

    def child(self, number: int, cell: Cell, **params: Any) -> Path:
        request = {"training_method": "teacher_student_distillation", "parent_gen": _name(1), "branch": True}
        older = {"grandparent_gen": _name(0)} if cell.teachers == 2 else {}
        runtime = {"student": {"ranks": cell.ranks}, "teachers": {"replicas": cell.replicas}}
        return self._write(number, request | older, self.steps, params=params, runtime=runtime)

    def _write(self, number: int, request: dict[str, Any], steps: int, **sections: Any) -> Path:
        params = {"steps": steps, "batch_size": ROWS, "lr": 1e-4} | sections.pop("params", {})
        runtime = {"signal_cache": "off", "compile": "off", "threads": self.threads} | sections.pop("runtime", {})
        body = {
            "evolution_request": {"child_gen": _name(number), **request},
            "data": {"train": ["rows.jsonl"], "max_length": 256},
            "training_params": params,
            "stabilizers": {"dreams": False, "replay_buffer": False} if number else {},
            "gates": {"recall": {"max_drop": 1.0}, "generalize": {"min_gain": -1.0}, "decoding": {"max_new_tokens": 1}},
            "laws": {"sampled_answers": 0},
            "runtime": runtime,
            **sections,
        }
        path = self.folder / f"{number:03d}.json"
        path.write_text(json.dumps(body))
        return path


def measure(options: Options) -> dict[str, Any]:
    title = "Ranks, teachers and replicas, oversubscribed"
    if not options.ray:
        return {"title": title, "notes": ["left out: it needs Ray's actors"], "rows": []}
    cells = options.pick(CELLS, CELLS[:2])
    steps, hidden, layers = options.pick((20, 256, 2), (12, 32, 1))
    with TemporaryDirectory(prefix="ladder-scaling-") as folder:
        family = Family(Path(folder), steps, hidden, layers, options.threads)
        seconds = _trained(family, cells)
        pieces = {number: _pieces(family, Cell(1, number, 1)) for number in {cell.teachers for cell in cells}}
    simulated = {cell: predicted(pieces[cell.teachers], cell, options.threads) for cell in cells}
    rows = [_row(cell, seconds, simulated) for cell in cells]
    grown = {cell.ranks: seconds[cell] for cell in cells if (cell.teachers, cell.replicas) == (2, 1)}
    notes = [
        f"equal work: {ROWS} rows of 256 tokens a step, D {hidden}, {layers} layers, nothing cached; every process "
        f"uses {options.threads} threads of the same {options.threads} cores",
        "simulated from the processor seconds of one step's pieces, each measured alone in one process",
    ]
    if len(grown) > 1:
        exponent, low, high = growth(grown)
        notes.append(f"seconds a step grow as ranks^{exponent:.2f} ({low:.2f}..{high:.2f}: bootstrap over steps, 95%)")
    return {"title": title, "notes": notes, "rows": rows}


def growth(seconds: dict[int, Sequence[float]], draws: int = 2000) -> tuple[float, float, float]:
    """Slope of log(median seconds) over log(processes), with the bootstrap's 95% interval over the steps."""
    generator, counts = np.random.default_rng(0), np.log(list(seconds))

    def slope(medians: Sequence[float]) -> float:
        return float(np.polyfit(counts, np.log(medians), 1)[0])

    drawn = [
        slope([float(np.median(generator.choice(np.asarray(one), len(one)))) for one in seconds.values()])
        for _ in range(draws)
    ]
    return slope([median(one) for one in seconds.values()]), *np.quantile(drawn, (0.025, 0.975)).tolist()


def predicted(costs: Costs, cell: Cell, cores: float) -> float:
    """Seconds a step of the simulation: all processes on one node, whose cores they share."""
    return simulate(costs, Layout(cell.ranks, cell.replicas, (Node(cores=cores),))).step


def _row(cell: Cell, seconds: Mapping[Cell, Sequence[float]], simulated: Mapping[Cell, float]) -> dict[str, Any]:
    """One training, in seconds and as a multiple of the first one, which other work on the machine moves less."""
    low, high = np.quantile(seconds[cell], (0.25, 0.75)).tolist()
    measured, first = median(seconds[cell]), next(iter(seconds))
    times, foreseen = measured / median(seconds[first]), simulated[cell] / simulated[first]
    spread = {"median": measured, "low": low, "high": high}
    return cell._asdict() | {
        "step, s": spread,
        "simulated, s": simulated[cell],
        "times the first": times,
        "simulated": foreseen,
        "simulated / measured": foreseen / times,
    }


def _trained(family: Family, cells: Sequence[Cell]) -> dict[Cell, list[float]]:
    """Seconds of each step with its waiting, by cell; one call, so that what can stay in place does."""
    from ladder.manifest import read_requests
    from ladder.registry import open_registry
    from ladder.report.console import Console
    from ladder.spine import evolve

    children = {cell: family.child(2 + place, cell) for place, cell in enumerate(cells)}
    home = family.folder / "home"
    with redirect_stdout(StringIO()):
        outcomes = evolve(read_requests([*family.genesis(), *children.values()]), home, Console(quiet=True))
    assert all(one.verdict in ("PROMOTED", "PASSED") for one in outcomes), [one.detail for one in outcomes]
    registry, found = open_registry(home), {}
    for cell, outcome in zip(children, outcomes[2:], strict=True):
        steps = registry.step_metrics(registry.find(str(outcome.ref)).run_id, "perf/")
        both = zip(steps["seconds"], steps["waited"], strict=True)
        found[cell] = [taken + waited for (_, taken), (_, waited) in both][FORGOTTEN:-FORGOTTEN]
    return found


def _pieces(family: Family, cell: Cell) -> Costs:
    """What one process does of a step, alone, as if its threads shared the work evenly: a step of all rows and one of
    half of them say what does not shrink."""
    whole, half = (_timing(family, cell, rows) for rows in (ROWS, ROWS // 2))
    shared, parameters = 2 * (whole.student - half.student), 12 * family.layers * family.hidden**2
    return Costs(
        student=shared / family.threads,
        fixed=max(0.0, whole.student - shared) / family.threads,
        teachers=tuple(work.reading / family.threads for work in whole.teachers),
        wire=(0.0,) * len(whole.teachers),
        courier=whole.courier,
        exchange=2 * 4 * parameters / LOOPBACK,
        call=CALL,
        threads=float(family.threads),
    )


def _timing(family: Family, cell: Cell, rows: int) -> Any:
    """Of a step, in seconds of a processor and not of the clock, with one thread: neither what else runs here nor
    threads that wait for each other are counted in."""
    from ladder.manifest import read_requests
    from ladder.planning.prepare import prepare
    from ladder.planning.timing import time_step
    from ladder.registry import open_registry
    from ladder.registry.lineage import resolve
    from ladder.setup import Run

    home = family.folder / "home"
    registry = open_registry(home)
    (request,) = read_requests([family.child(90 + rows, cell, batch_size=rows)])
    run = Run.open(request, resolve(request, registry, home), registry, home)
    work = prepare(run, registry, home, None, bare=0, tokens=family.folder / "tokens")
    assert work.start is not None
    devices = dict.fromkeys(("student", "teacher1", "teacher2"), "cpu")
    with mock.patch("time.perf_counter", time.process_time):
        return time_step(work.start, run.teachers[1], devices, 1)


def _name(number: int) -> str:
    return f"Scale-G{number:03d}"
