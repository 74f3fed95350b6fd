"""Several processes at once: nothing is lost in silence, no store is broken."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from ladder.errors import HeadMoved
from ladder.registry import open_registry

PROCESSES = 4


@pytest.mark.usefixtures("fast_models")
def test_no_promotion_is_lost(registry, make, fork, tmp_path):
    """Each process promotes three children of its own on top of whatever HEAD is; a late one starts over."""
    registry.promote(registry.record(make("Luna-G000")), expected=None, reason="genesis")

    def promote_three(process: int, home: Path = registry.home) -> None:
        mine = open_registry(home)
        for number in range(3):
            candidate = make(f"Luna-G{process}{number:02d}", process + number / 10)
            acknowledged = None
            while acknowledged is None:
                head = mine.head("Luna")
                child = replace(candidate, parent=head, manifest_digest=head.digest)
                try:
                    acknowledged = mine.promote(mine.record(child), expected=head, reason="race")
                except HeadMoved:
                    continue
                (tmp_path / f"ack-{acknowledged.ref}").touch()

    assert fork(*[lambda process=index: promote_three(process) for index in range(1, 1 + PROCESSES)]) == [0] * PROCESSES
    acknowledged = {path.name.removeprefix("ack-") for path in tmp_path.glob("ack-*")}
    assert len(acknowledged) == 3 * PROCESSES
    by_digest = {each.digest: each for each in registry.generations("Luna") if each.verdict == "PROMOTED"}
    ancestry, ancestor = set(), registry.head("Luna")
    while ancestor:
        ancestry.add(ancestor.ref)
        ancestor = by_digest.get(ancestor.parent)
    assert acknowledged < ancestry
    events = registry.history("Luna")
    assert [event.seq for event in events] == list(range(1, 2 + 3 * PROCESSES))
    assert all(later.from_ref == earlier.to_ref for earlier, later in itertools.pairwise(events))
    assert registry.verify("Luna") == []


@pytest.mark.parametrize("_repetition", range(2))
def test_a_fresh_home_opened_by_several(fork, tmp_path, _repetition):
    def open_it() -> None:
        assert open_registry(tmp_path / "home").families() == []

    assert fork(*[open_it] * PROCESSES) == [0] * PROCESSES
    assert not unfinished_files(tmp_path / "home")


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


def unfinished_files(home: Path) -> list[Path]:
    return [path for path in (home / "store").iterdir() if ".new" in path.name]
