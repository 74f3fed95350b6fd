"""How fast a machine is: measured once, kept with the user, told where others had the cores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ladder.planning import machine
from ladder.planning.machine import BUSY, Speed, facts, kept_in, measure, read, speed_of

QUIET = Speed(1e11, 1e10, 1e-6, 0.0, "2026-11-28")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Speed]]:
    """What the next measurements will find; a user who has measured nothing."""
    coming: list[Speed] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "measure", lambda threads: coming.pop(0))
    speed_of.cache_clear()
    yield coming
    speed_of.cache_clear()


def _again(threads: int = 2) -> Speed:
    """As the next process would find it."""
    speed_of.cache_clear()
    return speed_of(threads)


def test_a_machine_is_measured_once_and_that_is_kept_with_the_user(measured: list[Speed], tmp_path: Path) -> None:
    measured.append(QUIET)
    assert speed_of(2) == speed_of(2) == _again() == QUIET and not measured
    assert kept_in(2).parent == tmp_path / "ladder" and read(kept_in(2)) == QUIET
    assert json.loads(kept_in(2).read_text())["facts"] == facts(2)
    measured.append(replace(QUIET, flops=2e11))
    assert speed_of(1).flops == 2e11 and kept_in(1) != kept_in(2)


def test_beside_other_work_it_is_measured_again_and_the_quieter_one_kept(measured: list[Speed]) -> None:
    busy, busier, quiet = (replace(QUIET, busy=BUSY + more) for more in (0.1, 0.3, -BUSY))
    measured += [busy, busier, quiet]
    assert _again() == busy and _again() == busy and _again() == quiet and _again() == quiet and not measured


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps({"speed": {"flops": 0}}), "\x00"])
def test_what_is_not_whole_is_measured_anew(measured: list[Speed], text: str) -> None:
    kept_in(2).parent.mkdir()
    kept_in(2).write_text(text)
    measured.append(QUIET)
    assert _again() == QUIET == read(kept_in(2))


def test_a_cache_that_cannot_be_written_is_none(measured: list[Speed], tmp_path: Path) -> None:
    (tmp_path / "ladder").write_text("a file")
    measured += [QUIET, QUIET]
    assert _again() == QUIET and _again() == QUIET and not measured


def test_a_measurement_is_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on the wall that runs five times as fast, as beside other work, changes how busy it was and no rate."""
    monkeypatch.setattr(machine, "_SECONDS", 0.05)
    found, wall = measure(1), machine.time.perf_counter
    monkeypatch.setattr(machine.time, "perf_counter", lambda: 5 * wall())
    beside = measure(1)
    assert found.flops / 4 < beside.flops < 4 * found.flops and beside.busy > 0.7
    assert min(found.flops, found.traffic) > 1e8 and 1e-8 < found.call < 1e-3
