"""``python benchmarks/traces.py``: how long does `ladder erase` take to search what a family left behind?

Lines of words drawn at random are searched for the rows of a person, in several forms, as the files of 30 generations
with 2,000 lines each are. Not in it: reading files, their digests, MLflow.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ladder.data.rows import Row
from ladder.registry.redaction import Traces, redact

WORDS = 20_000
"""Different words of the language."""
LINE = 20
"""Words of an answer in the files, and of a person of usual length."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print seconds and memory for each person."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--lines", type=int, default=2000, help="of each generation")
    parser.add_argument("--rows", type=int, default=1000, help="of the person")
    parser.add_argument("--long", type=int, default=1500, help="words of a long row")
    asked = parser.parse_args(arguments)
    draw = random.Random(0)
    content = "".join(json.dumps(pair(draw, LINE, LINE)) + "\n" for _ in range(asked.lines)).encode()
    persons: dict[str, Callable[[], dict[str, Any]]] = {
        "usual rows": lambda: pair(draw, LINE, LINE),
        "long texts": lambda: {"text": words(draw, asked.long)},
        "long questions": lambda: pair(draw, draw.randrange(LINE, 2 * asked.long), LINE),
    }
    print(f"{asked.generations} x {asked.lines} lines, {asked.rows} rows of a person")
    for name, row in persons.items():
        rows = [Row(row(), "") for _ in range(asked.rows)]
        begun = time.process_time()
        traces = Traces(rows)
        for _ in range(asked.generations):
            redact("replay.jsonl", content, traces)
        size = sum(len(one.line()) for one in rows) / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name} ({size:.1f} MB): {time.process_time() - begun:.1f} s of CPU, {peak:.1f} GiB at most so far")
    return 0


def pair(draw: random.Random, asked: int, said: int) -> dict[str, Any]:
    """A question and an answer of so many words."""
    return {"prompt": words(draw, asked), "completion": words(draw, said)}


def words(draw: random.Random, count: int) -> str:
    """So many words, drawn evenly."""
    return " ".join(f"word{draw.randrange(WORDS)}" for _ in range(count))


if __name__ == "__main__":
    sys.exit(main())
