"""``python benchmarks/real/report.py``: tables and plots of ``docs/evidence-smollm2.md``, from the rows alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from matplotlib.figure import Figure

from benchmarks.continual.figures import Interval, Row, newest, older, promoted, steps_away
from benchmarks.continual.report import between, correlations, draw, save, scatter
from benchmarks.continual.run import read
from benchmarks.real import curve
from benchmarks.real.climb import KNOWN
from benchmarks.real.lessons import LESSONS
from benchmarks.real.methods import METHODS
from benchmarks.real.run import ROWS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evidence-smollm2.md"
Z = 1.96
"""Standard errors in half a 95% interval."""
TOLERANCE = 0.1
"""``gates.recall.max_drop`` of these manifests: a promotion is false where recall on other questions fell by more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables between their marks, and the plots beside the document."""
    asked = _parser().parse_args(arguments)
    rows = [row for row in read(asked.rows) if row["cell"]["size"] == "smollm2"]
    text, plots = asked.document.read_text(encoding="utf-8"), asked.document.with_suffix("")
    if rows := ordered(rows):
        plots.mkdir(parents=True, exist_ok=True)
        for name, body in (("methods", methods(rows)), ("lessons", lessons(rows)), ("ability", ability(rows))):
            text = between(text, name, body)
        text = between(text, "cells", cells(rows))
        draw(rows, plots / "lessons.svg")
        away = {method: [one for row in own for one in steps_away(row)] for method, own in by_method(rows).items()}
        text = between(text, "divergence", correlations(away))
        scatter(away, plots / "divergence.svg")
    if asked.curve.is_file():
        plots.mkdir(parents=True, exist_ok=True)
        smooth([json.loads(line) for line in asked.curve.read_text().splitlines()], plots / "likelihood.svg")
    asked.document.write_text(text, encoding="utf-8")
    return 0


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Methods in the order of ``METHODS``, then seeds."""
    place = {method: number for number, method in enumerate(METHODS)}
    return sorted(rows, key=lambda row: (place[row["cell"]["method"]], row["cell"]["seed"]))


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["cell"]["method"], []).append(row)
    return found


def transfer_back(row: Row) -> float:
    """Mean over the lessons before the last of what the last child answers, less what the child answered that learned
    it (Lopez-Paz and Ranzato, 2017)."""
    taught = {one["domain"]: one["accuracy"][one["domain"]] for one in row["generations"][:-1]}
    now = row["generations"][-1]["accuracy"]
    return fmean(now[name] - then for name, then in taught.items())


def kept(row: Row) -> float:
    """What the last child answers of what generation 0 was asked."""
    return float(row["generations"][-1]["accuracy"][KNOWN])


def divergences(row: Row) -> float:
    """Mean over the generations of the divergence from the parent on new rows, in nats a token."""
    return fmean(one["kl"] for one in row["generations"])


def learned(row: Row) -> float:
    """Mean over the generations of what a child answers of its own lesson."""
    return fmean(one["accuracy"][one["domain"]] for one in row["generations"])


def falsely(row: Row) -> float:
    """Promotions although recall fell beyond what the gates allow, on questions that no gate saw."""
    return float(sum(one["promoted"] and one["held_out_change"] < -TOLERANCE for one in row["generations"]))


def minutes(row: Row) -> float:
    """Of the processor, a generation: teachers, dreams and training, without the exam."""
    return fmean(one["cpu_seconds"] for one in row["generations"]) / 60


COLUMNS: dict[str, tuple[Callable[[Row], float], int]] = {
    "newest": (newest, 3),
    "older": (older, 3),
    "backward transfer": (transfer_back, 3),
    "known of generation 0": (kept, 3),
    "newest, mean of five": (learned, 3),
    "KL to parent, nats a token": (divergences, 3),
    "promoted": (promoted, 1),
    "falsely": (falsely, 1),
    "minutes a generation": (minutes, 1),
}
"""Headings of the first table, with their figures and digits."""


def methods(rows: Sequence[Row]) -> str:
    """A line for each method, a mean over seeds with its interval in each cell."""
    lines = [["method", "what it is", "seeds", *COLUMNS]]
    for method, own in by_method(rows).items():
        figures = [Interval.of([figure(row) for row in own]).text(digits) for figure, digits in COLUMNS.values()]
        lines.append([method, METHODS[method].says, str(len(own)), *figures])
    return table(lines)


def lessons(rows: Sequence[Row]) -> str:
    """What the last child answers of each lesson, by method."""
    names = [KNOWN, *LESSONS]
    lines = [["method", "seeds", *names, "drift from the voice"]]
    for method, own in by_method(rows).items():
        last = [row["generations"][-1] for row in own]
        said = [Interval.of([one["accuracy"][name] for one in last]).text(3) for name in names]
        drifts = [one["drift"] for one in last if one["drift"] is not None]
        lines.append([method, str(len(own)), *said, Interval.of(drifts).text(3) if drifts else "says too little"])
    return table(lines)


def ability(rows: Sequence[Row]) -> str:
    """Prose and questions after the last lesson, and their change since generation 0, paired over windows and
    questions; of several seeds each window's and question's mean counts."""
    base = rows[0]["base"]
    size = len(base["questions"])
    lines = [["model", "seeds", "prose, nats a token", f"{size} questions answered rightly"]]
    lines.append(["generation 0", "", f"{fmean(base['prose']):.3f}", f"{fmean(map(int, base['questions'])):.3f}"])
    for method, own in by_method(rows).items():
        prose = [fmean(each) for each in zip(*(row["last"]["prose"] for row in own), strict=True)]
        right = [fmean(map(int, each)) for each in zip(*(row["last"]["questions"] for row in own), strict=True)]
        said = [
            f"{fmean(now):.3f} ({paired(now, before)})"
            for now, before in ((prose, base["prose"]), (right, [*map(int, base["questions"])]))
        ]
        lines.append([method, str(len(own)), *said])
    return table(lines)


def paired(now: Sequence[float], before: Sequence[float]) -> str:
    """Mean difference with its 95% interval."""
    gaps = [one - other for one, other in zip(now, before, strict=True)]
    return f"{fmean(gaps):+.3f} ± {Z * stdev(gaps) / len(gaps) ** 0.5:.3f}"


def cells(rows: Sequence[Row]) -> str:
    """Where and of what each cell was run."""
    lines = [["cell", "commit", "machine", "threads", "versions", "minutes in all"]]
    for row in rows:
        machine, cell = row["machine"], row["cell"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        took = sum(one["seconds"] + one["exam_seconds"] for one in row["generations"]) / 60
        told = f"{machine['cpu']}, {machine['cores']} cores"
        lines.append(
            [f"{cell['method']}, {cell['seed']}", row["commit"], told, str(row["threads"]), versions, f"{took:.0f}"]
        )
    return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines as Markdown, the first as headings."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def smooth(looks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Likelihood and accuracy of each lesson over the steps of one training."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    steps = [look["step"] for look in looks]
    for panel, word in zip(figure.subplots(1, 2, sharey=True), ("likelihood", "accuracy"), strict=True):
        for name in looks[0]["found"]:
            label = f"{name} (being learned)" if name == looks[0]["lesson"] else name
            panel.plot(steps, [look["found"][name][word] for look in looks], marker=".", label=label)
        panel.set(title=word, xlabel="steps", ylim=(-0.05, 1.05))
    panel.legend()
    save(figure, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--curve", type=Path, default=curve.ROWS)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
