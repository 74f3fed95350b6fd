"""What Ray and torch say when an actor fails, told once: which errors are tried again, and what to do about each; and
which actors stay, make way or are ended."""

from __future__ import annotations

import errno
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.exceptions as of_ray
import ray.util
import torch

from ladder.actors import own_ray, session
from ladder.actors.placement import NODE_ID, Host, Node, Placement, Slot
from ladder.errors import ActorDied, GpuOutOfMemory, ManifestError, ModelError, OutOfMemory, RunError
from ladder.manifest import ROLES, Runtime

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


def a_node(number: int, *, alive: bool = True, name: str = "", **resources: float) -> dict[str, Any]:
    """As ``ray.nodes()`` lists it."""
    node_id = f"{number}" * 56
    own = {"CPU": 2.0, "memory": 9.0, "object_store_memory": 5.0, f"node:10.0.0.{number}": 1.0}
    labels = {NODE_ID: node_id, "rack": "a"}
    name = name or f"10.0.0.{number}"
    return {"NodeID": node_id, "Alive": alive, "NodeName": name, "Resources": own | resources, "Labels": labels}


class FakeRay:
    """What a session asks of Ray when it places actors.

    Args:
        nodes: as ``ray.nodes()`` lists them.
        patience: looks that it takes until a group is there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, Any], patience: int = 0) -> None:
        self.nodes, self.patience, self.done = list(nodes), patience, list[str]()
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(ray, "kill", lambda actor: self.done.append(f"kill {actor}"))
        monkeypatch.setattr(ray, "wait", lambda signs, **_: (signs[:1], signs[1:]))
        monkeypatch.setattr(ray.util, "placement_group", self.group)
        monkeypatch.setattr(ray.util, "remove_placement_group", lambda group: self.done.append("remove"))
        monkeypatch.setattr(own_ray, "free_by_node", lambda: {node["NodeID"]: {"CPU": 0.5} for node in self.nodes})

    def group(self, bundles: list[dict[str, float]], **_: Any) -> Any:
        self.done.append(f"group of {len(bundles)}")
        return SimpleNamespace(wait=self.wait)

    def wait(self, seconds: int) -> bool:
        self.patience -= 1
        return self.patience < 0


def test_a_lost_node_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are the cores of a node: one that is gone would halve them."""
    FakeRay(monkeypatch, a_node(1), a_node(2, alive=False))
    assert session.Session("local").machine.nodes == 1


def test_a_node_is_known_by_what_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch, a_node(1, GPU=3.0, big=2.0), a_node(2, name="b"), a_node(3, name="b"))
    first, second, third = session.Session("local").machine.members
    assert first == Node("10.0.0.1", 2.0, 3, {"rack": "a"}, {"big": 2.0}, 5, "1" * 56)
    assert second.name != third.name and second.name.startswith("b-"), "people can tell them apart"


def test_actors_make_way_for_another_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise they hold the cores that their successors need."""
    fake = FakeRay(monkeypatch, a_node(1))
    opened = session.Session("local")
    one, two = opened.placement(Runtime(), ROLES), opened.placement(Runtime(), ["student.1", *ROLES])
    opened._stand(one)
    opened._actors = {"student": "old student", "teacher1": "teacher"}
    opened._stand(opened.placement(Runtime(threads=1), ["student"]))
    assert fake.done == ["group of 4"], "placed alike, actors stay"
    opened._stand(two)
    assert fake.done[1:] == ["kill old student", "kill teacher", "remove", "group of 4"] and not opened._actors


def test_who_comes_after_a_training_takes_the_place_that_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch, a_node(1, GPU=4.0))
    opened, roles = session.Session("local"), ["student", "teacher1", "evaluator"]
    standing = opened.placement(Runtime(), roles)
    opened._stand(standing)
    assert opened.placement(Runtime(), ["evaluator"]) is standing
    assert opened.placement(Runtime(), ["student", "evaluator"]) != standing, "a training is placed for itself"
    elsewhere = Runtime.model_validate({"devices": {"evaluator": "cpu"}})
    assert opened.placement(elsewhere, ["evaluator"]) != standing


def test_what_ray_cannot_place_is_told_role_by_role_and_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START_TIMEOUT", 0.0)
    FakeRay(monkeypatch, a_node(1, GPU=2.0, big=1.0), a_node(2), patience=9)
    opened = session.Session("local")
    runtime = Runtime.model_validate({"devices": {"teacher1": {"device": "cpu", "resources": {"big": 1.0}}}})
    with pytest.raises(RunError, match="did not start within 0 s") as caught:
        opened._stand(opened.placement(runtime, ["student", "teacher1"]))
    told = str(caught.value)
    assert "asked for student on cuda:0 (1 CPU, 1 GPU), teacher1 on cpu (1 CPU, 0 GPU) of big: 1; " in told
    assert "there are 10.0.0.1 (2 CPU, 2 GPU, rack=a, big: 1): free are 0.5 CPU, 0 GPU, 10.0.0.2 (2 CPU" in told
    assert told.endswith("runtime.devices, runtime.student.ranks or runtime.teachers.replicas)")


def test_a_node_that_goes_while_actors_start_is_no_matter_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(monkeypatch, a_node(1), a_node(2), patience=9)
    opened = session.Session("local")
    placement = opened.placement(Runtime(), ROLES)
    ray_waits = fake.wait

    def wait(seconds: int) -> bool:
        fake.nodes[1]["Alive"] = False
        return ray_waits(seconds)

    monkeypatch.setattr(fake, "wait", wait)
    with pytest.raises(ActorDied, match="1 of 2 nodes went away"):
        opened._stand(placement)


def test_a_run_waits_for_a_node_like_the_one_that_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(monkeypatch, a_node(1), a_node(2, big=1.0))
    runtime = Runtime.model_validate({"devices": {"teacher1": {"resources": {"big": 1.0}}}})
    opened = session.Session("local")
    opened._stand(opened.placement(runtime, ["student", "teacher1"]))
    fake.nodes.pop()
    assert opened.bury() == [] and fake.done[-1] == "remove"
    monkeypatch.setattr(time, "sleep", lambda _: fake.nodes.append(a_node(3, big=1.0)))
    assert set(opened.placement(runtime, ["student", "teacher1"]).slots) == {"student", "teacher1"}
    fake.nodes.pop()
    opened.__dict__.pop("machine")
    monkeypatch.setattr(session, "START_TIMEOUT", 0.0)
    with pytest.raises(RunError, match="a node was lost, and teacher1 asks for 1 of the resource big") as caught:
        opened.placement(runtime, ["student", "teacher1"])
    assert not isinstance(caught.value, ManifestError) and "go on" in str(caught.value)


def test_what_no_node_ever_had_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch, a_node(1))
    runtime = Runtime.model_validate({"devices": {"teacher1": {"labels": {"rack": "b"}}}})
    with pytest.raises(ManifestError, match=r"the label rack=b, and no node has that; nodes: 10.0.0.1 .*rack=a"):
        session.Session("local").placement(runtime, ["teacher1"])


class Mute:
    """An actor that gives a sign of life, is dead, or waits for others and says nothing."""

    def __init__(self, name: str, *, alive: bool = True, waits: bool = False) -> None:
        self.name, self.alive, self.waits = name, alive, waits
        self.__ray_ready__ = SimpleNamespace(remote=lambda: self)

    def __str__(self) -> str:
        return self.name


def test_with_one_rank_all_of_them_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait in an exchange that the dead one never comes to: nobody waits for a sign of life from them."""
    fake, in_vain = FakeRay(monkeypatch, a_node(1)), list[str]()

    def wait(signs: list[Mute], timeout: float) -> tuple[list[Mute], list[Mute]]:
        answers = [sign for sign in signs if not sign.waits][:1]
        in_vain.extend(sign.name for sign in signs if not answers)
        return answers, [sign for sign in signs if sign not in answers]

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(session, "_arrived", lambda sign: sign.alive and not sign.waits)
    opened = session.Session("local")
    opened._actors = {
        "student": Mute("student", waits=True),
        "student.1": Mute("student.1", alive=False),
        "student.2": Mute("student.2", waits=True),
        "teacher1": Mute("teacher1"),
    }
    assert sorted(opened.bury()) == ["student", "student.1", "student.2"]
    assert in_vain == [], "nobody waits for ranks that cannot answer"
    assert list(opened._actors) == ["teacher1"] and "kill teacher1" not in fake.done and len(fake.done) == 3
    opened._actors = {"teacher1": Mute("teacher1"), "evaluator": Mute("evaluator", waits=True)}
    assert opened.bury() == ["evaluator"] and in_vain == ["evaluator"]


class FakeRank:
    """Notes how it joins the others."""

    def __init__(self, name: str) -> None:
        self.name, self.joined = name, list[Any]()
        self.meeting = self.join = self

    def remote(self, *told: Any, **named: Any) -> Any:
        self.joined.append(told or named)
        return f"where {self.name} says"


@pytest.mark.parametrize("machines", [("one", "one", "one"), ("one", "one", "two")])
def test_ranks_find_each_other_in_their_order_and_once(
    machines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "fetch", lambda told, timeout=None: told)
    roles = ("student", "student.1", "student.2")
    ranks = {role: FakeRank(role) for role in roles}
    opened = session.Session("local")
    opened._hosts = {role: Host("one", 2, "PASSIVE", machine) for role, machine in zip(roles, machines, strict=True)}
    slots = {role: Slot(1.0, 0.0, f"cuda:{number}") for number, role in enumerate(roles)}
    opened._standing = session._Standing(Placement((), slots), None, frozenset())  # type: ignore[arg-type]
    actors = {"teacher1": "t", **{role: ranks[role] for role in reversed(roles)}}
    for _ in range(2):
        assert opened.group(actors).ranks == tuple(ranks.values())
    where, joined = "where student says", [rank.joined for rank in ranks.values()]
    assert joined == [
        [{"one_node": len(set(machines)) == 1}, (0, 3, where, "cuda:0")],
        [(1, 3, where, "cuda:1")],
        [(2, 3, where, "cuda:2")],
    ]
    assert opened.group({"student": "alone"}).ranks == ("alone",)
