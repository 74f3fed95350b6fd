"""Every durable step of record, promote and rollback, cut off right after it, then the same command again.

Right after one step is right before the next, so every gap between two steps is tried.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ladder.errors import RegistryError
from ladder.registry import Registry, Verdict, open_registry

PROMOTE_STEPS = ["create_run", "set_registered_model_alias", "set_model_version_tag", "set_tag", "set_terminated"]
ROLLBACK_STEPS = ["create_run", "set_registered_model_alias", "set_terminated"]
RECORD_STEPS = [
    "create_run",
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_tag",
    "set_terminated",
]

pytestmark = pytest.mark.usefixtures("fast_models")


def killed_after(step: str) -> Callable[..., Any]:
    real = getattr(MlflowClient, step)

    def call(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def disk_full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_at(fork, monkeypatch, step: str, command: Callable[[], object]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, killed_after(step))
        assert fork(command) == [-signal.SIGKILL], "the step was not reached"


@pytest.mark.parametrize("step", PROMOTE_STEPS)
def test_killed_promotion(registry: Registry, make, fork, monkeypatch, step):
    root = registry.promote(registry.record(make("Luna-G000")), expected=None, reason="genesis")
    child = registry.record(make("Luna-G001", 0.1, parent=root))

    def command(home: Path = registry.home) -> object:
        return open_registry(home).promote(child, expected=root, reason="passed")

    killed_at(fork, monkeypatch, step, command)
    head = registry.head("Luna")
    assert head.ref in ("Luna-G000", "Luna-G001")
    assert head.verdict is Verdict.PROMOTED
    command()
    assert registry.head("Luna").ref == "Luna-G001"
    assert [each.verdict for each in registry.generations("Luna")] == [Verdict.PROMOTED] * 2
    moves = [(event.kind, event.from_ref, event.to_ref) for event in registry.history("Luna")]
    assert moves == [("promote", None, "Luna-G000"), ("promote", "Luna-G000", "Luna-G001")]
    assert registry.verify("Luna") == []


@pytest.mark.parametrize("step", ROLLBACK_STEPS)
def test_killed_rollback(luna: Registry, fork, monkeypatch, step):
    def command(home: Path = luna.home) -> object:
        return open_registry(home).rollback("Luna", reason="worse")

    killed_at(fork, monkeypatch, step, command)
    done = step == "set_terminated"
    assert luna.head("Luna").ref in ("Luna-G001", "Luna-G002")
    assert done or luna.rollback("Luna", reason="worse").ref == "Luna-G001"
    assert luna.head("Luna").ref == "Luna-G001", "repeating a rollback that a crash cut off goes no further back"
    moves = [(event.kind, event.to_ref) for event in luna.history("Luna")[3:]]
    assert moves == [("rollback", "Luna-G001")]
    assert luna.verify("Luna") == []


@pytest.mark.parametrize("step", RECORD_STEPS)
def test_killed_recording(registry: Registry, make, fork, monkeypatch, step):
    candidate = make("Luna-G000", passed=False, failed_gates=["tone"])

    def command(home: Path = registry.home) -> object:
        return open_registry(home).record(candidate)

    killed_at(fork, monkeypatch, step, command)
    assert len(registry.generations("Luna")) <= 1
    command()
    (only,) = registry.generations("Luna")
    assert (only.ref, only.verdict) == ("Luna-G000", Verdict.REJECTED)
    assert [event.kind for event in registry.history("Luna")] == ["reject"]
    assert registry.verify("Luna") == []
    experiment = registry.store.client.get_experiment_by_name("Luna").experiment_id
    assert len(registry.store.client.search_logged_models([experiment])) == 1
    assert len(registry.store.client.search_runs([experiment])) == 1
    assert not list((registry.home / "cache" / "staging").iterdir())


@pytest.mark.parametrize("step", ["log_model_artifacts", "create_model_version", "set_terminated"])
def test_full_disk_while_recording(registry: Registry, make, monkeypatch, step):
    candidate = make("Luna-G000", passed=False, failed_gates=["tone"])
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, disk_full)
        with pytest.raises(RegistryError, match="No space left on device"):
            registry.record(candidate)
    assert registry.record(candidate).ref == "Luna-G000"
    assert registry.verify("Luna") == []


def test_an_interrupted_promotion_is_shown_before_it_is_settled(luna: Registry, make, fork, monkeypatch):
    head = luna.head("Luna")
    child = luna.record(make("Luna-G003", 0.3, parent=head))

    def command(home: Path = luna.home) -> object:
        return open_registry(home).promote(child, expected=head, reason="passed")

    killed_at(fork, monkeypatch, "create_run", command)
    assert len(luna.history("Luna")) == 3, "what did not happen is no history"
    (finding,) = luna.verify("Luna")
    assert finding.ref == "4 promote Luna-G003"
    luna.rollback("Luna", reason="another command settles it")
    assert [event.seq for event in luna.history("Luna")] == [1, 2, 3, 5]
    assert luna.verify("Luna") == []
