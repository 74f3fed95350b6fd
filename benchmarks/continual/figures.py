"""From rows to figures: what a cell comes to, and means over seeds with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student_t

CONFIDENCE = 0.95
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and half the width of its 95% interval by Student's t; None with one seed."""

    mean: float
    half: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        n = len(values)
        if n < 2:
            return cls(fmean(values), None, n)
        return cls(fmean(values), float(student_t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * stdev(values) / n**0.5, n)

    def text(self, digits: int = 2) -> str:
        return f"{self.mean:.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")


def newest(row: Row) -> float:
    """Accuracy on the last domain after the last generation."""
    last = row["generations"][-1]
    return last["accuracy"][last["domain"]]


def older(row: Row) -> float:
    """Mean accuracy on all domains before the last, after the last generation."""
    last = row["generations"][-1]
    return fmean(value for name, value in last["accuracy"].items() if name != last["domain"])


def oldest(row: Row) -> float:
    """Accuracy on the first domain, which the genesis learned, after the last generation."""
    return next(iter(row["generations"][-1]["accuracy"].values()))


def steps_away(row: Row) -> list[tuple[float, float]]:
    """Of each generation how far it went from its parent on the new rows (KL to it, nats a token), and what it lost on
    the older domains, mean accuracy; nothing of rows that were written before that was measured."""
    return [
        (one["kl"], fmean(was - one["accuracy"][name] for name, was in one["before"].items() if name != one["domain"]))
        for one in row["generations"]
        if "kl" in one
    ]


def mean_of_all(row: Row) -> float:
    """Mean accuracy on all domains after the last generation."""
    return fmean(row["generations"][-1]["accuracy"].values())


def forgetting(row: Row) -> float:
    """Mean over the older domains of the best accuracy that any generation had, less that of the last one (Chaudhry et
    al., 2018)."""
    last = row["generations"][-1]
    history = [generation["accuracy"] for generation in row["generations"]]
    best = {
        name: max([seen[name] for seen in history if name in seen] + [_at_start(row, name)])
        for name in last["accuracy"]
        if name != last["domain"]
    }
    return fmean(value - last["accuracy"][name] for name, value in best.items())


def _at_start(row: Row, name: str) -> float:
    return row["generations"][0]["before"].get(name, 0.0)


def transfer(row: Row) -> float:
    """Mean accuracy on a domain before anything of it was taught (forward transfer)."""
    return fmean(generation["before"][generation["domain"]] for generation in row["generations"])


def promoted(row: Row) -> float:
    """Generations that the gates let pass."""
    return float(sum(generation["promoted"] for generation in row["generations"]))


def total(name: str) -> Callable[[Row], float]:
    """A cost summed over the generations."""
    return lambda row: float(sum(generation[name] for generation in row["generations"]))


def last(name: str) -> Callable[[Row], float]:
    """A figure of the last generation."""
    return lambda row: float(row["generations"][-1][name])


COLUMNS: dict[str, tuple[Callable[[Row], float], int]] = {
    "newest": (newest, 3),
    "older": (older, 3),
    "oldest": (oldest, 3),
    "all": (mean_of_all, 3),
    "forgotten": (forgetting, 3),
    "known before": (transfer, 3),
    "gates passed": (promoted, 1),
    "ECE": (last("ece"), 3),
    "entropy, nats": (last("entropy"), 2),
    "distinct bigrams": (last("distinct"), 2),
    "drift": (last("drift"), 3),
    "thousand tokens": (lambda row: total("tokens")(row) / 1000, 0),
    "seconds": (total("seconds"), 0),
}
"""Headings of the table, with their figures and digits."""


def summary(rows: Iterable[Row]) -> dict[str, dict[str, Interval]]:
    """Intervals over seeds, by method and heading, in the order in which the methods stand."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row["cell"]["method"], []).append(row)
    return {
        method: {name: Interval.of([figure(row) for row in own]) for name, (figure, _) in COLUMNS.items()}
        for method, own in by_method.items()
    }


def curves(rows: Iterable[Row]) -> dict[str, list[float]]:
    """Mean accuracy over seeds on each domain after each generation, from the one that taught it on."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for generation in row["generations"]:
            for name, value in generation["accuracy"].items():
                found.setdefault(name, {}).setdefault(generation["generation"], []).append(value)
    return {name: [fmean(values) for _, values in sorted(points.items())] for name, points in found.items()}
