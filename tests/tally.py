"""Figures that tests reach, added up and printed in one table when all tests are done, also when some of them fail."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, Protocol

import pytest

_TRIALS = pytest.StashKey[dict[str, Counter[str]]]()


class Tally(Protocol):
    """``tally("T2, random kills", tried=1, survived=1)`` adds to the figures of this trial.

    What is tried is told before the first assertion, what came out of it afterwards: a failure shows in the table.
    """

    def __call__(self, trial: str, **figures: float) -> None: ...


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    trials = request.config.stash.setdefault(_TRIALS, {})

    def add(trial: str, **figures: float) -> None:
        counted: Counter[Any] = trials.setdefault(trial, Counter())
        counted.update(figures)

    return add


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if trials := config.stash.get(_TRIALS, None):
        terminalreporter.section("figures reached")
        for trial in sorted(trials, key=_place):
            terminalreporter.line(f"{trial}: {_in_words(trials[trial])}")


def _place(trial: str) -> tuple[float, str]:
    """By the number of the table T1 to T18; what has none comes last."""
    numbered = re.match(r"T(\d+), ", trial)
    return (int(numbered[1]) if numbered else math.inf, trial)


def _in_words(figures: Counter[str]) -> str:
    return ", ".join(f"{value:g} {what.replace('_', ' ')}" for what, value in figures.items())
