"""Where actors live: which numbers of threads are too many there."""

from __future__ import annotations

import pytest

from ladder.actors.placement import Host, crowded, look_around


def test_actors_that_take_turns_are_meant_to() -> None:
    """Threads that sleep while they wait, as many as there are cores in each of three actors: ladder's own choice."""
    assert crowded([Host("here", 2, "PASSIVE")] * 3, 2) == []
    assert crowded([Host("here", 2, "passive")] * 3, 1) == []


@pytest.mark.parametrize("waits", ["ACTIVE", ""])
def test_threads_that_spin_must_not_be_more_than_cores(waits: str) -> None:
    (told,) = crowded([Host("here", 4, waits)] * 3, 2)
    assert told.startswith("3 actors with 2 threads each on here, which has 4 cores, and OMP_WAIT_POLICY=")
    assert (waits or "(not set)") in told and told.endswith("or set runtime.threads to 1")
    assert crowded([Host("here", 4, waits)] * 2, 2) == []
    assert crowded([Host("here", 4, waits), Host("there", 4, waits)], 4) == [], "each has its own machine"


def test_more_threads_than_cores_are_too_many_anyway() -> None:
    """As where Ray was told of more CPUs than there are."""
    (told,) = crowded([Host("here", 2, "PASSIVE"), Host("there", 8, "PASSIVE"), Host("here", 2, "PASSIVE")], 8)
    assert told == (
        "8 threads for each actor on here, which has 2 cores: steps take longer; set runtime.threads to 2 or less"
    )


def test_an_actor_tells_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = look_around(object())
    assert (found.cores, found.waits) == (3, "ACTIVE") and found.machine
