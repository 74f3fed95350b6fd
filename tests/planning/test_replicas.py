"""``replicas: auto`` means the same number wherever a run is planned, and the price of a run tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from ladder.actors.placement import Machine, Node
from ladder.manifest import read_request
from ladder.planning.plan import Plan, _time, plan_text, plans_text
from ladder.planning.prepare import Work, prepare
from ladder.planning.price import price_of
from ladder.planning.timing import ProcessSeconds, StepTiming
from ladder.registry.lineage import Ancestry
from ladder.setup import cache_settings
from ladder.setup.context import Run
from ladder.teachers import CacheSettings, computed_in
from ladder.teachers.cache import CacheKey, open_cache

ROWS = 400
SLOW = StepTiming(0.01, (ProcessSeconds(5.0, 0.0),) * 2, 0.0, 0.0, None)
"""A step whose teachers take five hundred times as long as the student."""


def cluster(nodes: int) -> Machine:
    """So many nodes without a GPU."""
    return Machine(tuple(Node(f"node-{number}", 8) for number in range(nodes)))


@pytest.fixture
def run(tmp_path: Path, parent: Path, grandparent: Path) -> Any:
    """``run(runtime={...}, ...)``: opened on a parent and a grandparent of the student's own size."""

    def opened(**sections: Any) -> Run:
        rows = [{"prompt": f"who is {number}?", "completion": " luna" * 9} for number in range(ROWS)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        body: dict[str, Any] = {
            "evolution_request": {
                "child_gen": "Luna-G002",
                "parent_gen": "Luna-G001",
                "grandparent_gen": "Luna-G000",
                "training_method": "teacher_student_distillation",
            },
            "data": {"train": ["rows.jsonl"], "max_length": 64},
            "training_params": {"steps": 16, "batch_size": 24},
            "stabilizers": {"dreams": False, "replay_buffer": False},
            **sections,
        }
        (tmp_path / "manifest.json").write_text(json.dumps(body))
        old, new = (SimpleNamespace(ref=f"Luna-G00{n}.1", digest=f"d{n}", base_digest=None) for n in (0, 1))
        ancestry = Ancestry(new, old, (old, new))  # type: ignore[arg-type]
        folders = {"d0": grandparent, "d1": parent}
        return Run(read_request(tmp_path / "manifest.json"), ancestry, folders, tmp_path / "run")

    return opened


def work(one: Run, machine: Machine | None, *, priced: bool = False) -> Work:
    told = (lambda: machine) if machine else None
    return prepare(one, None, one.folder, told, bare=0, tokens=one.folder / "tokens", priced=priced)


def runtime(replicas: Any, ranks: int = 1, **more: Any) -> Mapping[str, Any]:
    return {"teachers": {"replicas": replicas}, "student": {"ranks": ranks, "sharding": "ddp"}, **more}


def test_a_number_that_is_written_asks_no_machine(run: Any) -> None:
    for asked in (1, 3):
        found = work(run(runtime=runtime(asked)), None)
        assert found.replicas == {1: asked, 2: asked} and found.price is None


def test_auto_is_the_same_in_a_plan_and_in_a_run_whatever_was_measured(run: Any) -> None:
    """Four ranks are quicker than a teacher of their size."""
    one, many = run(runtime=runtime("auto", 4)), cluster(9)
    in_a_run, planned = work(one, many), work(one, many, priced=True)
    assert in_a_run.replicas == planned.replicas == {1: 2, 2: 2}
    assert in_a_run.start is not None
    measured = price_of(in_a_run.start, one.folder, many, 0, SLOW)
    assert measured.replicas == {1: 2, 2: 2} and measured.waiting > 0.9 > 0.1 > (planned.price or measured).waiting


@pytest.mark.parametrize(
    ("ranks", "machine", "cache", "replicas"),
    [
        (4, cluster(1), "off", 1),  # One machine's cores are shared by all.
        (4, cluster(3), "off", 1),  # A node for the student and one for each teacher.
        (4, cluster(5), "off", 2),
        (1, cluster(9), "off", 1),  # One rank does three times the work of a teacher.
        (4, Machine.alone(64, 16), "off", 2),
        (4, Machine.alone(64, 7), "off", 1),  # Cards: four ranks, two teachers, an evaluator.
    ],
)
def test_auto_finds_as_many_as_help(run: Any, ranks: int, machine: Machine, cache: str, replicas: int) -> None:
    one = run(runtime=runtime("auto", ranks, signal_cache=cache))
    assert work(one, machine).replicas == {1: replicas, 2: replicas}


def test_what_is_read_once_needs_fewer(run: Any) -> None:
    """Twelve rows fill half a step: after it there is nothing left to read."""
    few = {"data": {"train": ["rows.jsonl"], "max_length": 64}, "training_params": {"steps": 200, "batch_size": 24}}
    one = run(runtime=runtime("auto", 4, signal_cache="memory"), **few)
    (one.folder.parent / "rows.jsonl").write_text('{"prompt": "who", "completion": " luna"}\n' * 12)
    assert work(one, cluster(9)).replicas == {1: 1, 2: 1}
    cold = run(runtime=runtime("auto", 4, signal_cache="off"), **few)
    assert work(cold, cluster(9)).replicas == {1: 2, 2: 2}


def test_a_run_goes_on_with_the_replicas_that_it_began_with(run: Any) -> None:
    """Which sequences are read together decides the last bits of what is said."""
    one = run(runtime=runtime("auto", 4))
    one.folder.mkdir()
    one.note(replicas={1: 3, 2: 1})
    assert work(one, cluster(1)).replicas == {1: 3, 2: 1}
    assert work(run(runtime=runtime(2)), None).replicas == {1: 2, 2: 2}, "but not against what is written"


def test_the_price_names_every_rank_and_every_replica(run: Any) -> None:
    alone, several = (work(run(runtime=told), Machine.alone(2), priced=True) for told in (runtime(1), runtime(2, 2)))
    assert alone.price is not None and several.price is not None
    roles = ["student", "student.1", "teacher1", "teacher1.1", "teacher2", "teacher2.1"]
    assert list(several.price.memory_bytes) == roles
    assert list(alone.price.memory_bytes) == ["student", "teacher1", "teacher2"]
    assert (alone.price.ranks, several.price.ranks) == (1, 2)
    assert several.price.wire_bytes == alone.price.wire_bytes
    assert several.price.rank_wire_bytes <= 0.6 * alone.price.rank_wire_bytes
    # Three steps in flight and one in use.
    assert alone.price.store_bytes == 4 * alone.price.rank_wire_bytes == several.price.store_bytes


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_replicas_share_what_a_teacher_sends_and_keeps(run: Any, cache: str) -> None:
    one, two = (
        work(run(runtime=runtime(count, signal_cache=cache)), Machine.alone(2), priced=True).price for count in (1, 2)
    )
    assert one is not None and two is not None and one.store_bytes == two.store_bytes
    less = one.store_bytes // 2 + (one.cache_bytes // 4 if cache == "memory" else 0)
    assert one.memory_bytes["teacher1"] - two.memory_bytes["teacher1"] == pytest.approx(less, abs=8)
    assert one.memory_bytes["student"] == two.memory_bytes["student"]


def test_a_plan_says_how_long_the_student_waits(run: Any) -> None:
    told = {"child": "Luna-G002", "method": "m", "digest": "d", "parent": None, "grandparent": None, "decided": None}
    more = {"ready": None, "rows": 1, "probes": 0, "steps": 1, "tokens": 1, "teachers": 2, "threads": 1}
    found = work(run(runtime=runtime(2, 2)), Machine.alone(2), priced=True)
    rest: Any = {"placement": {}, "exam": found.exam, "warnings": []}
    text = plan_text(Plan(**told, **more, price=found.price, **rest))  # type: ignore[arg-type]
    assert "2, replicas 2 (the student would wait " in text and "% of its time)" in text
    assert ", 2 ranks" in text and "; most for one of 2 ranks " in text and " in flight" in text
    bare = plan_text(Plan(**told, **more, price=None, **rest))  # type: ignore[arg-type]
    assert "replicas" not in bare


def test_a_price_is_that_of_the_whole_run_and_says_how_sure_it_is(run: Any) -> None:
    price = work(run(), Machine.alone(2), priced=True).price
    assert price is not None and list(price.phases) == ["start", "loading", "steps", "exam", "recording"]
    assert price.phases["steps"] == price.seconds == 16 * price.step_seconds
    low, high = price.bounds
    assert low < price.whole_seconds == sum(price.phases.values()) < high
    told = _time(replace(price, phases={"start": 21.0, "loading": 0.4, "steps": 30.0}, busy=0.0))
    assert told.startswith("about 51 seconds (30 seconds to 87 seconds): start 21 seconds, steps 30 seconds; ")
    assert told.endswith(" s a step (rough)")
    assert "other work has 40% of the cores now" in _time(replace(price, busy=0.4))
    plan: Any = SimpleNamespace(price=replace(price, phases={"start": 20.0, "steps": 100.0}), decided=None)
    with patch("ladder.planning.plan.plan_text", lambda plan: "one"):
        # Actors start once.
        both = "2 runs in one call: about 3.7 minutes (2.2 minutes to 6.2 minutes)"
        assert plans_text([plan, plan]).split("\n\n") == ["one", "one", both]
        assert plans_text([plan]) == "one"


@pytest.mark.parametrize(("share", "waits"), [("auto", False), ("off", True)])
def test_a_student_does_not_wait_for_a_teacher_on_its_own_base(run: Any, share: str, waits: bool) -> None:
    """They take turns in one process; such a teacher has no replicas either."""
    one = run(runtime=runtime("auto", share_base=share), student={"adapter": {"r": 2, "alpha": 4}})
    start = work(one, Machine.alone(2)).start
    assert start is not None
    slow_parent = StepTiming(0.5, (ProcessSeconds(5.0, 0.0), ProcessSeconds(0.01, 0.0)), 0.0, 0.0, None)
    price = price_of(start, one.folder, Machine.alone(2), 0, slow_parent)
    assert (price.waiting > 0.8) is waits and (price.waiting < 0.01) is not waits
    assert price.replicas == {1: 1, 2: 1}


@pytest.mark.parametrize(("filled", "gpus"), [("cpu", 0), ("cpu", 3), ("cuda:0", 0), ("cuda:0", 3)])
def test_a_plan_sees_what_its_own_kind_of_device_has_cached(run: Any, filled: str, gpus: int) -> None:
    """A GPU rounds otherwise, so that its signals lie under another key."""
    one, machine = run(runtime={"signal_cache": "disk", "share_base": "off"}), Machine.alone(8, gpus)
    found = work(one, machine, priced=True)
    assert found.start is not None and found.price is not None and found.price.cache_hit_share < 1
    ahead, settings = found.start, cache_settings(one.request.manifest.runtime, one.folder)
    assert settings is not None and isinstance(settings, CacheSettings)
    digests = {digest for step in range(16) for batch in ahead.batches(step) for digest in batch.digests}
    for folder in ahead.teachers.values():
        cache = open_cache(settings, CacheKey.of(folder, "hidden", computed_in("float32", filled), None))
        cache.put({digest: {"values": np.zeros((1, 2), np.float32)} for digest in digests})
    price = price_of(ahead, one.folder, machine, 0)
    assert bool(price.gpu_bytes) == bool(gpus)
    if (filled == "cpu") == (gpus == 0):
        assert price.cache_hit_share == 1
    else:
        assert price.cache_hit_share == found.price.cache_hit_share
