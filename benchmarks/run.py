"""Run the benchmarks: print tables, write JSON. `make bench` runs this; `--help` lists the sections."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch

from benchmarks.machine import describe_machine
from benchmarks.options import Options
from benchmarks.tables import render
from benchmarks.timing import listening
from ladder.report.console import Console
from ladder.report.live import Task

RESULTS = Path(__file__).resolve().parent / "results.json"
SECTIONS = {
    "loss": "benchmarks.loss",
    "memory": "benchmarks.memory",
    "teachers": "benchmarks.teachers",
    "step": "benchmarks.step",
    "cache": "benchmarks.cache",
    "wire": "benchmarks.wire",
    "base": "benchmarks.shared_base",
    "checkpoint": "benchmarks.checkpoint",
    "scaling": "benchmarks.cluster.scaling",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the wanted sections; what is done is written after each, so that a cut-off run keeps it."""
    asked = _parser().parse_args(arguments)
    options = Options(
        rounds=asked.rounds,
        threads=asked.threads,
        quick=asked.quick,
        ray=not asked.no_ray,
        trl=not asked.no_trl and _has_trl(),
        main=asked.main,
    )
    torch.set_num_threads(options.threads)
    results: dict[str, object] = {"machine": describe_machine(options.threads), "options": vars(asked) | {"out": None}}
    print(json.dumps(results["machine"], indent=2))
    console = Console()
    for name in asked.only or SECTIONS:
        start = time.monotonic()
        console.phase(f"section {name}")
        with console.working("measuring") as task, listening(partial(_turn, task)):
            section = importlib.import_module(SECTIONS[name]).measure(options)
        results[name] = section | {"seconds": round(time.monotonic() - start, 1)}
        print(render(section), flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {asked.out}")
    return 0


def _turn(task: Task, whose: str) -> None:
    task.text = f"measuring {whose}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", type=_sections, metavar="A,B", help=f"some of: {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--main", action="store_true", help="the loss at its two main sizes only")
    parser.add_argument("--no-ray", action="store_true", help="leave the step through Ray actors out")
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: the figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    return parser


def _has_trl() -> bool:
    """Whether TRL is there (``make bench`` installs it); said aloud where it is not."""
    found = importlib.util.find_spec("trl") is not None
    if not found:
        print('TRL is not installed, so nothing is compared with it: pip install -e ".[bench]"', file=sys.stderr)
    return found


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if strange := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is no section, expected some of {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
