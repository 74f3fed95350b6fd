"""``python benchmarks/steering/report.py``: the tables of docs/steering-evidence.md, from the rows alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.continual.run import read
from benchmarks.steering.climb import REGULARISERS, WAYS, Way
from benchmarks.steering.judge import judged, slope
from benchmarks.steering.run import ROWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "steering-evidence.md"
COLUMNS = ("trait, nats", "coherence / base", "recall", "JSON closed", "cos(v3, v0)", "KL, summed", "slope", "verdict")


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's last round beside the genesis."""
    base, last = row["base"], row["rounds"][-1]
    return {
        "trait": last["trait"] - base["trait"],
        "coherence": last["coherence"] / base["coherence"],
        "recall": last["recall"] - base["recall"],
        "frames": last["frames"],
        "cosine": last["cosine"],
        "moved": sum(one["moved"] for one in row["rounds"]),
        "off": last["recall"] - base["recall"],
    }


def line(name: str, way: Way, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line of a table: means over seeds, with their standard deviation."""
    found = [figures(row) for row in rows if row["cell"]["way"] == name]
    if not found:
        return ""
    told = {key: [one[key] for one in found] for key in found[0]}
    cells = [_cell(told[key]) for key in ("trait", "coherence", "recall", "frames", "cosine", "moved")]
    slopes = [each for one in found if (each := slope(one["coherence"] - 1, one["trait"])) is not None]
    cells += [_cell(slopes) if slopes else "-", judged({key: mean(values) for key, values in told.items()})]
    return f"| {name} | {way.what} | {len(found)} | {' | '.join(cells)} |"


def _cell(values: Sequence[float]) -> str:
    return f"{mean(values):+.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def table(ways: Mapping[str, Way], rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    head = ["way", "what it is", "seeds", *COLUMNS]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *filter(None, (line(name, way, rows) for name, way in ways.items()))])


def between(text: str, name: str, made: str) -> str:
    """A page with what stands between two marks made anew."""
    first, last = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, _, rest = text.partition(first)
    return f"{before}{first}\n{made}\n{last}{rest.partition(last)[2]}"


def main() -> None:
    rows, text = read(ROWS), PAGE.read_text(encoding="utf-8")
    for name, ways in {"ways": WAYS, "regularisers": REGULARISERS}.items():
        made = table(ways, rows)
        print(made)
        text = between(text, name, made)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
