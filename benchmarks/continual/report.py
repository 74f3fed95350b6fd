"""``python benchmarks/continual/report.py``: the tables of ``docs/evidence.md`` and its plots, from the rows alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from benchmarks.continual.figures import COLUMNS, Row, curves, steps_away, summary
from benchmarks.continual.methods import ABLATIONS, MAIN, METHODS, REHEARSALS
from benchmarks.continual.once import ROWS as ONCE
from benchmarks.continual.run import ROWS, read

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evidence.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables between their marks, and the plots beside the document."""
    asked = _parser().parse_args(arguments)
    text = asked.document.read_text(encoding="utf-8")
    plots = asked.document.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    everything = ladders(read(asked.rows))
    for (size, generations), rows in everything.items():
        name = f"{size}-{generations}"
        main, others, rehearsals = (list(group) for group in _groups(rows))
        if not main:
            continue
        text = between(text, name, table(main))
        draw(main, plots / f"{name}.svg")
        default = [row for row in main if row["cell"]["method"] == "default"]
        if others:
            text = between(text, f"{name}-ablations", table([*default, *others]))
        if rehearsals:
            text = between(text, f"{name}-rehearsal", table([*default, *rehearsals]))
            draw([*default, *rehearsals], plots / f"{name}-rehearsal.svg")
    if again := read(asked.once):
        text = between(text, "once", once_table(again))
    if away := {method: points for method, points in _away(everything).items() if points}:
        text = between(text, "kl", correlations(away))
        scatter(away, plots / "kl.svg")
    asked.document.write_text(text, encoding="utf-8")
    return 0


def ladders(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows by size and number of generations; methods in the order of ``METHODS``, then seeds."""
    order = {method: place for place, method in enumerate(METHODS)}
    found: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (order[row["cell"]["method"]], row["cell"]["seed"])):
        found.setdefault((row["cell"]["size"], row["cell"]["generations"]), []).append(row)
    return found


def _groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows of what people choose between, those of one thing changed, and those of other rehearsal."""
    for group in (MAIN, ABLATIONS, REHEARSALS):
        yield [row for row in rows if row["cell"]["method"] in group]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: a line for each method, a mean over seeds with its interval in each cell."""
    lines = [["method", "what it is", "seeds", *COLUMNS], ["---"] * (3 + len(COLUMNS))]
    for method, figures in summary(rows).items():
        seeds = next(iter(figures.values())).seeds
        cells = [figures[name].text(digits) for name, (_, digits) in COLUMNS.items()]
        lines.append([method, METHODS[method].says, str(seeds), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _away(everything: Mapping[tuple[str, int], Sequence[Row]]) -> dict[str, list[tuple[float, float]]]:
    """Of every method each generation's distance from its parent, and what it lost."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in (row for rows in everything.values() for row in rows):
        found.setdefault(row["cell"]["method"], []).extend(steps_away(row))
    return found


def correlations(away: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """A Markdown table: by method mean distance and loss of a generation, and over which of them the two rise together
    (Spearman's rank correlation)."""
    lines = [["method", "generations", "KL, nats a token", "lost a generation", "rank correlation"], ["---"] * 5]
    pooled = [point for points in away.values() for point in points]
    for method, points in [*away.items(), ("all", pooled)]:
        kl, lost = zip(*points, strict=True)
        told = f"{spearmanr(kl, lost).statistic:.2f}" if len(points) > 2 else ""
        lines.append([method, str(len(points)), f"{fmean(kl):.2f}", f"{fmean(lost):.3f}", told])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def once_table(rows: Sequence[Row]) -> str:
    """A Markdown table: what the child of one line answers of each lesson, by method, beside its parent."""
    names = [name for name in rows[0]["accuracy"] if name != rows[0]["domain"]]
    lines = [["method", "what it is", "newest", "older", *names], ["---"] * (4 + len(names))]
    lines.append(["", "the parent", "", *_figures(rows[0]["before"], names)])
    for row in sorted(rows, key=lambda row: list(METHODS).index(row["method"])):
        newest = f"{row['accuracy'][row['domain']]:.2f}"
        lines.append([row["method"], METHODS[row["method"]].says, newest, *_figures(row["accuracy"], names)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(accuracy: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """The mean over these domains, and each."""
    known = [accuracy[name] for name in names]
    return [f"{fmean(known):.3f}", *(f"{value:.2f}" for value in known)]


def scatter(away: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """A point for each generation of each method: how far it went from its parent on what is new, and what it lost."""
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    panel = figure.subplots()
    for place, (method, points) in enumerate(away.items()):
        kl, lost = zip(*points, strict=True)
        panel.scatter(kl, lost, s=14, label=method, color=f"C{place % 10}", marker="osD^v<>Pp*X"[place // 10])
    panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    panel.set_xlabel("KL of the child to its parent on the new rows, nats a token")
    panel.set_ylabel("mean accuracy lost on older domains")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    save(figure, path)


def between(text: str, name: str, body: str) -> str:
    """The document with what stands between the marks of this name replaced.

    Raises:
        ValueError: it has no such marks.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the document has no marks {begin.strip()} and {end}")
    before, rest = text.split(begin, 1)
    return before + begin + body + end + rest.split(end, 1)[1]


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each method: accuracy on each domain after each generation."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row["cell"]["method"], []).append(row)
    columns = min(4, len(by_method))
    lines = -(-len(by_method) // columns)
    figure = Figure(figsize=(max(8.0, 2.6 * columns), 2.1 * lines + 0.8), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for panel in axes.flat[len(by_method) :]:
        panel.set_visible(False)
    for panel, (method, own) in zip(axes.flat, by_method.items(), strict=False):
        _panel(panel, curves(own))
        panel.set_title(method)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
    figure.supxlabel("generation")
    figure.supylabel("accuracy")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    # The same figures give the same file.
    with rc_context({"svg.hashsalt": "ladder"}):
        figure.savefig(path, metadata={"Date": None})


def _panel(panel: Any, found: Mapping[str, Sequence[float]]) -> None:
    last = max(map(len, found.values()))
    for name, values in found.items():
        first = last - len(values) + 1
        panel.plot(range(first, last + 1), values, marker=".", label=name)
    panel.set_ylim(-0.05, 1.05)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--once", type=Path, default=ONCE, help="rows of one generation again (once.py)")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
