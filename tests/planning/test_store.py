"""Signals that would not fit the object store of the student's node are refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.actors.own_ray import store_of_new_ray
from ladder.actors.placement import Machine, Node
from ladder.errors import ManifestError
from ladder.manifest import Runtime
from ladder.planning import store

MIB = 2**20


def start(parent: Path, tmp_path: Path, **runtime: Any) -> Any:
    """A student with one teacher, whose steps have at most 16 x 32 tokens."""
    manifest = SimpleNamespace(
        runtime=Runtime.model_validate(runtime),
        training_params=SimpleNamespace(batch_size=16),
        student=SimpleNamespace(dtype="float32"),
        data=SimpleNamespace(max_length=32),
    )
    return SimpleNamespace(request=SimpleNamespace(manifest=manifest), teachers={1: parent}, made={})


@pytest.fixture(autouse=True)
def _ten_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "largest_step", lambda start, home: 10 * MIB)


def nodes(*stores: int) -> Machine:
    kinds = ({"rack": "a"}, {"rack": "b"})
    return Machine(
        tuple(Node("n", 2.0, 0, kind, store_bytes=size * MIB) for kind, size in zip(kinds, stores, strict=False))
    )


@pytest.mark.parametrize(("in_flight", "fits"), [(1, True), (3, True), (4, False)])
def test_steps_in_flight_and_the_one_in_use_must_fit(parent: Path, tmp_path: Path, in_flight: int, fits: bool) -> None:
    asked, machine = start(parent, tmp_path, in_flight=in_flight), nodes(45)
    if fits:
        return store.check_store(asked, tmp_path, machine)
    with pytest.raises(ManifestError, match=r"5 steps of up to 10\.0 MiB of signals are in flight") as caught:
        store.check_store(asked, tmp_path, machine)
    assert caught.value.where == "runtime.in_flight" and "student's node has 45.0 MiB" in caught.value.message
    assert str(caught.value.remedy).startswith("write 3 or less, or runtime.wire: topk, or give that node more")
    return None


def test_only_a_node_that_may_host_the_student_counts(parent: Path, tmp_path: Path) -> None:
    there = {"student": {"labels": {"rack": "b"}}}
    store.check_store(start(parent, tmp_path, devices=there), tmp_path, nodes(20, 45))
    with pytest.raises(ManifestError, match=r"has 20\.0 MiB"):
        store.check_store(start(parent, tmp_path), tmp_path, nodes(20, 45))
    store.check_store(start(parent, tmp_path), tmp_path, Machine.alone(2))  # nobody knows


def test_what_can_never_fill_a_store_is_not_counted(parent: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """512 tokens of 32 numbers, or of 300 logits; and Ray itself makes no store that is smaller than the bound."""
    few = 4 * 16 * 32 * 32 * 4
    monkeypatch.setattr(store, "SMALLEST", few)
    assert not store.may_be_too_much(start(parent, tmp_path))
    assert store.may_be_too_much(start(parent, tmp_path, in_flight=4))
    assert store.may_be_too_much(start(parent, tmp_path, wire="logits"))
    assert store_of_new_ray() > 75 * MIB
