"""Promote in a loop and be killed at a random moment, over and over: nothing torn, nothing acknowledged lost."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder.registry import Registry
from ladder.registry.artifacts import problems_of


@pytest.mark.usefixtures("fast_models")
@pytest.mark.parametrize("kills", [40, *(pytest.param(kills, marks=pytest.mark.long) for kills in (200, 1000))])
def test_promotions_survive_random_kills(luna: Registry, kill_after, tally, kills):
    """Promotion n makes generation n modulo 3 HEAD. HEAD must be the last acknowledged one or the next."""
    generations = luna.generations("Luna")

    def promote(acknowledge: Callable[[int], object]) -> None:
        acknowledge(last)
        for number in itertools.count(last + 1):
            luna.promote(generations[number % 3], expected=luna.head("Luna"), reason=str(number))
            acknowledge(number)

    durations = []
    for last in (3, 4, 5):
        begun = time.monotonic()
        luna.promote(generations[last % 3], expected=luna.head("Luna"), reason=str(last))
        durations.append(time.monotonic() - begun)
    longest = 3 * min(durations)
    for kill in range(kills):
        before, last = last, kill_after(promote, random.Random(kill).uniform(0, longest))
        longest *= 1.04 if last == before else 1  # Other work has begun beside this one.
        head = luna.head("Luna")
        assert head.name.index in (last % 3, (last + 1) % 3), f"kill {kill}: acknowledged was promotion {last}"
        assert kill % 20 or problems_of(luna.store, head) == []
    assert last - 5 > kills / 10, "the kills came too early to try anything"
    luna.settle("Luna")
    written = [int(event.reason) for event in luna.history("Luna")[3:]]
    assert written in (list(range(3, last + 1)), list(range(3, last + 2))), "each promotion is there once"
    assert luna.verify("Luna") == []
    tally("T2, SIGKILL at a random moment of promotions", kills=kills, acknowledged=last - 5, lost=0, torn=0)


@pytest.mark.parametrize("kills", [10, pytest.param(40, marks=pytest.mark.long)])
def test_a_writer_that_overwrites_in_place_does_not(tmp_path: Path, kill_after, tally, kills):
    """The control: the same kills tear what is written without a temporary name or a journal."""
    file, padding = tmp_path / "head.json", "x" * 2_000_000

    def overwrite(acknowledge: Callable[[int], object]) -> None:
        acknowledge(0)
        for number in itertools.count(1):
            with file.open("w") as stream:
                json.dump({"padding": padding, "head": number}, stream)
            acknowledge(number)

    file.write_text("{}")
    torn = 0
    for kill in range(kills):
        kill_after(overwrite, random.Random(kill).uniform(0, 0.1))
        try:
            json.loads(file.read_text())
        except ValueError:
            torn += 1
    assert torn > 0
    tally("T2, the control: files overwritten in place", kills=kills, torn=torn)
