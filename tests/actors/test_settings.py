"""What the environment of a run's processes says, and that a person's own setting stays."""

from __future__ import annotations

import os

import pytest

from ladder.actors import settings
from ladder.actors.settings import TRAVELLING, missing, travelling


def test_what_nobody_said_is_added_and_what_somebody_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert missing()["TQDM_DISABLE"] == "1" and "OMP_WAIT_POLICY" not in missing()
    assert travelling()["OMP_WAIT_POLICY"] == "ACTIVE" and "TQDM_DISABLE" not in travelling()


def test_everything_that_an_actor_reads_travels() -> None:
    """What is left of the defaults is read by Ray's own processes alone."""
    at_home = {"RAY_USAGE_STATS_ENABLED", "RAY_memory_monitor_refresh_ms", "RAY_prestart_worker_first_driver"}
    assert settings._DEFAULTS.keys() - set(TRAVELLING) == at_home


def test_no_secret_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches a Ray's dashboard can read what travels."""
    assert [name for name in TRAVELLING if any(word in name for word in ("TOKEN", "KEY", "PASSWORD"))] == [
        "TOKENIZERS_PARALLELISM"
    ]
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in travelling().values()


def test_a_session_completes_the_environment() -> None:
    import ladder.actors.session

    assert ladder.actors.session.os is os and missing() == {}
