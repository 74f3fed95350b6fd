"""How long a student waits, by hand and against the loop that streams steps; and how many replicas that asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ladder.actors import session
from ladder.actors.remote import TeacherHandle
from ladder.data.batches import Batch, Batches, Collation
from ladder.data.examples import Example
from ladder.manifest import Runtime
from ladder.planning.pools import Reading, keeping_up, room_for, waited, waiting
from ladder.planning.traffic import TeacherTraffic, price_signals


def steady(*seconds: float, steps: int = 5) -> np.ndarray:
    """The same work of each process in every step."""
    return np.tile(np.array(seconds), (steps, 1))


def test_a_student_waits_for_the_slowest_and_not_before_its_first_step() -> None:
    assert waited(1.0, [steady(0.9)], in_flight=3) == 0
    assert waited(1.0, [steady(2.0)], in_flight=3) == pytest.approx(4)
    assert waited(1.0, [steady(0.5), steady(0.25, 3.0)], in_flight=3) == pytest.approx(4 * 2)
    assert waited(1.0, [steady(1.0, 1.0)], in_flight=3) == 0, "two replicas have half of it each"
    assert waited(1.0, [], in_flight=3) == 0


def test_work_ahead_fills_a_gap_as_far_as_steps_are_in_flight() -> None:
    """Seven quick steps, then one of four seconds: with four more steps in flight it began as long before."""
    work = [np.array([[0.1]] * 7 + [[4.0]])]
    assert waited(1.0, work, in_flight=4) == pytest.approx(0.0)
    assert waited(1.0, work, in_flight=3) == pytest.approx(1.0)
    assert waited(1.0, work, in_flight=1) == pytest.approx(3.0)
    # Nothing is ahead: every step waits for its own signal.
    assert waited(1.0, work, in_flight=0) == pytest.approx(6 * 0.1 + 4.0)


def test_before_a_checkpoint_all_that_was_sent_is_done() -> None:
    """So the step after it finds nothing that is ready."""
    assert waited(1.0, [steady(0.5, steps=6)], in_flight=3, leg=2) == pytest.approx(2 * 0.5)
    assert waiting(1.0, [steady(0.5, steps=6)], in_flight=3, leg=2) == pytest.approx(1 / 7)


class Late:
    """Stands for actors: each takes what it is sent one after another, and answers when its time is over."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.waits: list[float] = []

    def worker(self) -> ThreadPoolExecutor:
        return self.stack.enter_context(ThreadPoolExecutor(1))

    def teacher(self, seconds: Sequence[float]) -> Any:
        pool, left = self.worker(), iter(seconds)
        return SimpleNamespace(
            signal=SimpleNamespace(remote=lambda number, batches: pool.submit(time.sleep, next(left)))
        )

    def group(self, seconds: float) -> Any:
        pool, idle = self.worker(), [0.0]

        def step(said: Sequence[Future[None]]) -> None:
            for part in said:
                part.result()
            began = time.perf_counter()
            self.waits.append(began - idle[0] if idle[0] else 0.0)
            time.sleep(seconds)
            idle[0] = time.perf_counter()

        def send(step_: int, shares: Any, said: Any) -> Future[None]:
            return [pool.submit(step, [part for parts in said[0].values() for part in parts])]

        return SimpleNamespace(ranks=(None,), step=send)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    monkeypatch.setattr(session, "hear", lambda group, futures, timeout=None: [future.result() for future in futures])
    with ExitStack() as stack:
        yield Late(stack)


STUDENT, READING, STEPS = 0.03, 0.07, 30


@pytest.fixture
def batches() -> Batches:
    """Steps of twelve rows out of many."""
    rows = [Example((number, *range(9)), (True,) * 9, gold=True) for number in range(500)]
    return Batches({"new": rows}, {"new": 1.0}, 12, 1, 0, Collation(0, 24))


def reading_of(batches: Batches, steps: int = STEPS, **cache: Any) -> Reading:
    traffic = TeacherTraffic(1, False, 24, **cache)
    price_signals(batches, steps, [traffic])
    return traffic.reading


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_the_loop_that_streams_steps_waits_as_long(late: Late, batches: Batches, replicas: int) -> None:
    work = reading_of(batches).seconds(READING, 0.0, replicas)
    teacher = TeacherHandle(tuple(late.teacher(work[:, replica].tolist()) for replica in range(replicas)), 1)
    # Not Ray's, which would start one.
    put, group = (lambda value: value), late.group(STUDENT)
    stream = session.stream(group, {1: teacher}, batches, range(STEPS), Runtime(), lambda: False, put=put)
    assert len(list(stream)) == STEPS
    expected = waited(STUDENT, [work], Runtime().in_flight)
    assert sum(late.waits) == pytest.approx(expected, rel=0.3, abs=0.05 * STUDENT * STEPS)
    alone = waited(STUDENT, [reading_of(batches).seconds(READING, 0.0, 1)], Runtime().in_flight)
    assert replicas == 1 or expected < 0.5 * alone


def test_what_each_replica_reads_is_what_it_will_hear(batches: Batches) -> None:
    reading = reading_of(batches)
    for count in (1, 2, 3):
        shared = reading.shared_out(count)
        for step in range(4):
            heard = [
                sum(b.heard_by(1, replica=replica, replicas=count)[0].input_ids_BT.size for b in batches(step))
                for replica in range(count)
            ]
            assert shared[step].tolist() == heard
        assert shared.sum() == reading.positions == reading.asked


def test_what_is_cached_is_recalled_and_not_read(batches: Batches) -> None:
    few = Batches({"new": batches.pools["new"][:24]}, {"new": 1.0}, 12, 1, 0, Collation(0, 24))
    cached = reading_of(few, steps=6, limit=2**30)
    assert cached.shared_out(2)[:2].sum() == cached.positions and cached.asked == 3 * cached.positions
    seconds = cached.seconds(reading=0.9, recalling=0.1, replicas=2)
    assert seconds[0].sum() == pytest.approx(0.9) and seconds[5].tolist() == [0.05, 0.05]
    assert reading_of(few, steps=6).positions == cached.asked, "without a cache everything is read every time"


def test_a_packed_sequence_is_read_where_one_of_its_examples_is_new(batches: Batches) -> None:
    packed = Batches(batches.pools, {"new": 1.0}, 12, 1, 0, Collation(0, 24, packing=True))
    reading = reading_of(packed, steps=3, limit=2**30)
    micro: tuple[Batch, ...] = packed(0)
    assert len(reading.keys[0]) == sum(len(b.input_ids_BT) for b in micro) < 12


def test_as_many_replicas_as_keep_the_student_from_waiting(batches: Batches) -> None:
    reading = reading_of(batches)
    needs = {seconds: keeping_up(1.0, {1: (reading, seconds)}, 8, 3)[1] for seconds in (0.5, 0.9, 1.6, 3.0)}
    assert needs[0.5] == needs[0.9] == 1 and 2 <= needs[1.6] <= needs[3.0] <= 5
    for seconds, count in needs.items():
        assert waiting(1.0, [reading.seconds(seconds, 0.0, count)], 3) <= 0.05
        assert count == 1 or waiting(1.0, [reading.seconds(seconds, 0.0, count - 1)], 3) > 0.05
    assert keeping_up(1.0, {1: (reading, 3.0), 2: (reading, 0.5)}, 2, 3) == {1: 2, 2: 1}, "no more than find room"
    assert keeping_up(0.0, {1: (reading, 0.0)}, 1, 3) == {1: 1}


@pytest.mark.parametrize(
    ("teachers", "on_gpu", "taken", "gpus", "nodes", "room"),
    [
        (2, False, 0, 0, 1, 1),  # Cores of one machine are shared by all.
        (2, False, 0, 0, 2, 1),
        (1, False, 0, 0, 2, 1),
        (2, False, 0, 0, 5, 2),
        (1, False, 0, 0, 4, 3),
        (2, True, 2, 8, 1, 3),
        (2, True, 5, 8, 2, 1),
        (2, True, 2, 2, 1, 1),
        (0, True, 2, 8, 1, 1),
    ],
)
def test_room_for_replicas(teachers: int, on_gpu: bool, taken: int, gpus: int, nodes: int, room: int) -> None:
    assert room_for(teachers, on_gpu=on_gpu, taken=taken, gpus=gpus, nodes=nodes) == room
