"""One holder at a time, named to the second."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time

import pytest

from ladder.errors import Busy
from ladder.registry import family_lock
from ladder.registry.locks import is_held


def test_the_second_is_told_who_holds_it(tmp_path):
    with family_lock(tmp_path, "Luna", "evolve") as path:
        assert path == tmp_path / "locks" / "Luna.evolve.lock"
        with pytest.raises(Busy) as caught, family_lock(tmp_path, "Luna", "evolve"):
            pass
        assert f"held by process {os.getpid()} on {socket.gethostname()} since 20" in str(caught.value)
        with family_lock(tmp_path, "Luna", "head"), family_lock(tmp_path, "Terra", "evolve"):
            pass
        assert is_held(tmp_path, "Luna", "evolve")
    assert not is_held(tmp_path, "Luna", "evolve")
    with family_lock(tmp_path, "Luna", "evolve"):
        pass


def test_waiting_has_an_end(tmp_path):
    with family_lock(tmp_path, "Luna", "head"):
        begun = time.monotonic()
        with pytest.raises(Busy), family_lock(tmp_path, "Luna", "head", timeout=0.3):
            pass
        assert time.monotonic() - begun >= 0.3


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), family_lock(tmp_path, "Luna", "head"):
        raise ZeroDivisionError
    assert not is_held(tmp_path, "Luna", "head")


def test_death_lets_go(tmp_path, fork):
    def die() -> None:
        with family_lock(tmp_path, "Luna", "evolve"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die) == [-signal.SIGKILL]
    with family_lock(tmp_path, "Luna", "evolve"):
        pass


def test_those_who_look_are_in_nobodys_way(tmp_path, fork):
    """Nor in each other's, also where somebody died and left a signature."""

    def die() -> None:
        with family_lock(tmp_path, "Luna", "evolve"):
            os.kill(os.getpid(), signal.SIGKILL)

    fork(die)
    path = tmp_path / "locks" / "Luna.evolve.lock"
    assert path.stat().st_size
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_held(tmp_path, "Luna", "evolve")
        let_go = threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        let_go.start()
        with family_lock(tmp_path, "Luna", "evolve"):
            assert is_held(tmp_path, "Luna", "evolve")
        let_go.join()


def test_what_nobody_signed_is_not_touched(tmp_path, monkeypatch):
    with family_lock(tmp_path, "Luna", "evolve"):
        pass
    monkeypatch.setattr(fcntl, "flock", None)
    assert not is_held(tmp_path, "Luna", "evolve")


def test_a_child_process_does_not_keep_the_lock(tmp_path):
    """A forked child shares the open file; leaving the block lets go all the same."""
    reader, writer = os.pipe()
    with family_lock(tmp_path, "Luna", "evolve"):
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        assert not is_held(tmp_path, "Luna", "evolve")
        with family_lock(
            tmp_path, "Luna", "evolve"
        ):  # Taken and not only asked for: who lets go wipes its signature, too.
            pass
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_waiters_take_turns(tmp_path, fork):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(20):
            with family_lock(tmp_path, "Luna", "head", timeout=60):
                counter.write_text(str(int(counter.read_text()) + 1))

    assert fork(count, count, count) == [0, 0, 0]
    assert counter.read_text() == "60"


def test_asking_creates_nothing(tmp_path):
    assert not is_held(tmp_path, "Luna", "evolve")
    assert list(tmp_path.iterdir()) == []
