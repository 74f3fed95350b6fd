"""Several processes at once: nothing is lost in silence, no store is broken."""

from __future__ import annotations

import itertools
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ladder.errors import HeadMoved
from ladder.registry import open_registry

PROCESSES = 4


@pytest.mark.usefixtures("fast_models")
@pytest.mark.parametrize("children", [2, pytest.param(10, marks=pytest.mark.long)])
def test_no_promotion_is_lost(registry, make, fork, tmp_path, monkeypatch, tally, children):
    """Each process promotes children of its own on top of whatever HEAD is; a late one starts over."""
    registry.promote(registry.record(make("Luna-G000")), expected=None, reason="genesis")
    set_alias = MlflowClient.set_registered_model_alias

    def set_it_late(*args: object) -> None:
        time.sleep(0.1)  # Between the comparison and the move, so that a missing lock is seen.
        set_alias(*args)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", set_it_late)

    def promote_some(process: int, home: Path = registry.home) -> None:
        mine = open_registry(home)
        for number in range(children):
            candidate = make(f"Luna-G{process}{number:02d}", process + number / 100)
            acknowledged = None
            while acknowledged is None:
                head = mine.head("Luna")
                child = replace(candidate, parent=head, manifest_digest=head.digest)
                try:
                    acknowledged = mine.promote(mine.record(child), expected=head, reason="race")
                except HeadMoved:
                    continue
                (tmp_path / f"ack-{acknowledged.ref}").touch()

    assert fork(*[lambda process=index: promote_some(process) for index in range(1, 1 + PROCESSES)]) == [0] * PROCESSES
    acknowledged = {path.name.removeprefix("ack-") for path in tmp_path.glob("ack-*")}
    assert len(acknowledged) == children * PROCESSES
    by_digest = {each.digest: each for each in registry.generations("Luna") if each.verdict == "PROMOTED"}
    ancestry, ancestor = set(), registry.head("Luna")
    while ancestor:
        ancestry.add(ancestor.ref)
        ancestor = by_digest.get(ancestor.parent)
    assert acknowledged < ancestry
    events = registry.history("Luna")
    assert [event.seq for event in events] == list(range(1, 2 + children * PROCESSES))
    assert all(later.from_ref == earlier.to_ref for earlier, later in itertools.pairwise(events))
    assert registry.verify("Luna") == []
    tally("T4, promotions by 4 processes at once", acknowledged=len(acknowledged), lost=len(acknowledged - ancestry))


@pytest.mark.parametrize("_repetition", [0, *[pytest.param(number, marks=pytest.mark.long) for number in range(1, 5)]])
def test_a_fresh_home_opened_by_several(fork, tmp_path, tally, _repetition):
    def open_it() -> None:
        assert open_registry(tmp_path / "home").families() == []

    assert fork(*[open_it] * PROCESSES) == [0] * PROCESSES
    assert not unfinished_files(tmp_path / "home")
    tally("T5, fresh homes opened by 4 processes at once", opened=1)


@pytest.mark.parametrize("step", ["mlflow.store.db.utils._upgrade_db", "os.replace"])
def test_a_first_open_that_was_killed(fork, tmp_path, monkeypatch, step):
    """While the store is half migrated, and just before it is renamed into place."""

    def kill(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(step, kill)
        assert fork(lambda: open_registry(tmp_path / "home")) == [-signal.SIGKILL]
    assert unfinished_files(tmp_path / "home")
    assert open_registry(tmp_path / "home").families() == []
    assert not unfinished_files(tmp_path / "home")


@pytest.mark.long
def test_a_first_open_killed_at_random_moments(kill_after, tmp_path, tally):
    begun = time.monotonic()
    open_registry(tmp_path / "whole")
    longest = time.monotonic() - begun
    for kill in range(24):
        home = tmp_path / str(kill)

        def open_it(tell, home: Path = home) -> None:
            tell(0)
            open_registry(home)
            time.sleep(longest)

        tally("T5, SIGKILL during the first open", tried=1)
        kill_after(open_it, longest * kill / 23)
        assert open_registry(home).families() == []
        assert not unfinished_files(home)
        tally("T5, SIGKILL during the first open", opened_afterwards=1)


def unfinished_files(home: Path) -> list[Path]:
    return [path for path in (home / "store").iterdir() if ".new" in path.name]
