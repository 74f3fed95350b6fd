"""What Ray and torch say when an actor fails, told once: which errors are tried again, and what to do about each."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import ray
import ray.exceptions as of_ray
import torch

from ladder.actors import session
from ladder.actors.placement import Slot
from ladder.errors import ActorDied, GpuOutOfMemory, ModelError, OutOfMemory, RunError

DIED = of_ray.ActorDiedError()
SPOKEN = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"

FULL = "CUDA out of memory. Tried 9 GiB"
TOLD: dict[str, tuple[Exception, type[RunError], str]] = {
    "torch on a CPU": (RuntimeError(SPOKEN), OutOfMemory, "out of memory: DefaultCPUAllocator: can't allocate memory"),
    "torch on a GPU": (torch.OutOfMemoryError(FULL), GpuOutOfMemory, "CUDA out of memory"),
    "cuBLAS": (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), GpuOutOfMemory, "ALLOC_FAILED"),
    "Python": (MemoryError(), OutOfMemory, "out of memory: MemoryError"),
    "the operating system": (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory, "Cannot allocate memory"),
    "the object store": (of_ray.ObjectStoreFullError("full"), OutOfMemory, "The local object store is full"),
    "Ray's monitor": (of_ray.OutOfMemoryError("low on memory"), ActorDied, "node ran out of memory: low on memory"),
    "a dead node": (of_ray.NodeDiedError("node 7 is gone"), ActorDied, "an actor died: node 7 is gone"),
    "a dead actor": (DIED, ActorDied, "an actor died: The actor died unexpectedly"),
    "a silent actor": (of_ray.ActorUnavailableError("no route", None), ActorDied, "is unavailable: no route"),
    "a lost object": (of_ray.ObjectLostError("ab", None, ""), ActorDied, "an actor died"),
    "Ray's full disk": (of_ray.OutOfDiskError("full"), RunError, "could not go on: .*local disk"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device", "a.bin"), RunError, "No space left .*'a.bin'"),
}


def in_an_actor(cause: Exception) -> Exception:
    """The error as ``ray.get`` raises it, when it was raised in an actor, or in a task that it waited for."""
    return of_ray.RayTaskError("step", "traceback", cause, "ray::step", 1, "127.0.0.1").as_instanceof_cause()


def fetched(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    def get(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(ray, "get", get)
    return session.fetch("reference")


@pytest.mark.parametrize("name", TOLD)
def test_each_error_becomes_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cause, kind, said = TOLD[name]
    with pytest.raises(kind, match=said) as caught:
        fetched(monkeypatch, in_an_actor(cause))
    assert type(caught.value) is kind
    assert "the last checkpoint is kept" in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [name for name, (cause, *_) in TOLD.items() if isinstance(cause, of_ray.RayError)])
def test_what_ray_says_itself_is_told_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cause, kind, said = TOLD[name]
    with pytest.raises(kind, match=said):
        fetched(monkeypatch, cause)


@pytest.mark.parametrize("name", TOLD)
def test_where_memory_ran_out_the_remedy_is_to_use_less(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError) as caught:
        fetched(monkeypatch, in_an_actor(TOLD[name][0]))
    short = isinstance(caught.value, OutOfMemory) or name == "Ray's monitor"
    assert ("data.max_length" in str(caught.value)) is short


def test_what_ladder_raised_there_comes_back_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="logits are not finite"):
        fetched(monkeypatch, in_an_actor(ModelError("logits are not finite")))


def test_our_own_mistakes_stay_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        fetched(monkeypatch, in_an_actor(KeyError("digest")))


def test_a_lost_node_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are the cores of a node: one that is gone would halve them."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    assert session.Session("local").machine.nodes == 1


def test_an_actor_makes_way_for_its_role_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it holds the cores that its successor needs."""
    killed: list[str] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    opened, large, small = session.Session("local"), Slot(1.0, 0.0, "cpu"), Slot(0.5, 0.0, "cpu")
    opened._actors = {("student", large): "old student", ("teacher1", small): "teacher", ("evaluator", large): "other"}
    opened._make_way({"student": small, "teacher1": small})
    assert killed == ["old student"] and ("student", large) not in opened._actors and len(opened._actors) == 2
