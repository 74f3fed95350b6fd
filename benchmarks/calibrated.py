"""How often the bounds of ``gates.calibration`` hold: ``python benchmarks/calibrated.py`` prints a table."""

from __future__ import annotations

import argparse

import numpy as np

from ladder.exam import Probe, Told, calibration_error
from ladder.gates.statistics import calibration_interval

SHIFTS = ((0.0, 0.0), (0.1, 0.1), (0.0, 0.05), (0.0, 0.1), (0.1, 0.0), (0.2, 0.02))
MANY = 100_000


def answers(draw: np.random.Generator, n: int, parent: float, child: float) -> tuple[list[Told], list[Told]]:
    """What child and parent answered, each too sure by so much."""
    chance = draw.beta(1.2, 0.8, size=n)
    theirs = draw.random(n) < chance
    ours = np.where(draw.random(n) < 0.85, theirs, draw.random(n) < chance)
    probes = [Probe(str(place), "") for place in range(n)]
    sure = np.clip(chance + child + draw.normal(0, 0.03, n), 0, 1), np.clip(chance + parent, 0, 1)
    return tuple(  # type: ignore[return-value]
        [Told(*one) for one in zip(probes, said.tolist(), right.tolist(), strict=True)]
        for said, right in zip(sure, (ours, theirs), strict=True)
    )


def difference(ours: list[Told], theirs: list[Told]) -> float:
    """Of the calibration errors."""
    columns = ([list(column) for column in zip(*each, strict=True)] for each in (ours, theirs))
    child, parent = (calibration_error(sure, right) for _, sure, right in columns)
    return (child or 0.0) - (parent or 0.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, default=200)
    asked = parser.parse_args()
    names = ("probes", "parent, child", "true difference", "lower holds", "upper holds", "width", "point passes")
    print(f"| {' | '.join(names)} | interval passes |")
    print("|---|---|---|---|---|---|---|---|")
    for n in (40, 150, 600):
        for parent, child in SHIFTS:
            true = difference(*answers(np.random.default_rng(1), MANY, parent, child))
            exams = [answers(np.random.default_rng(100 + exam), n, parent, child) for exam in range(asked.exams)]
            found = [calibration_interval(*exam, 0.95) for exam in exams]
            rises = [difference(*exam) for exam in exams]
            shares = [
                np.mean([one.low <= true for one in found]),
                np.mean([one.high >= true for one in found]),
                np.mean([one.high - one.low for one in found]),
                np.mean([rise <= 0.05 for rise in rises]),
                np.mean([one.high <= 0.05 for one in found]),
            ]
            print(f"| {n} | {parent}, {child} | {true:+.3f} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
