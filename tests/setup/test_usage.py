"""What a training took, added up over sessions and processes."""

from __future__ import annotations

import json

import numpy as np

from ladder.actors.placement import Traffic
from ladder.setup.context import Usage, shared_by_role
from ladder.system.process import ProcessMemory, process_memory, reset_peak, resident_bytes
from ladder.teachers.cache import CacheStatistics
from ladder.train.spec import StepReport

MIB = 2**20


def test_a_run_that_was_cut_off_adds_up() -> None:
    first = Usage().after(StepReport(0, 1.0, wire_bytes=10 * MIB, seconds=2.0, waited=0.5))
    memory = {"student": ProcessMemory("a", 1, 300 * MIB), "teacher1": ProcessMemory("a", 2, 100 * MIB)}
    noted = json.loads(json.dumps(first.surveyed([CacheStatistics(1, 3, MIB)], memory).to_dict()))
    again = Usage.of_notes({"usage": noted}).after(StepReport(1, 1.0, wire_bytes=10 * MIB, seconds=1.0, waited=0.5))
    memory["student"] = ProcessMemory("a", 9, 200 * MIB)
    whole = again.surveyed([CacheStatistics(4, 0, 0)], memory)
    assert (whole.steps, whole.wire_bytes, whole.cache_bytes, whole.hits, whole.misses) == (2, 20 * MIB, MIB, 5, 3)
    assert whole.memory_bytes == {"student": 300 * MIB, "teacher1": 100 * MIB}, "the larger peak of both sessions"
    assert whole.waiting == 0.25
    said = "wire 20.0 MiB, cache 1.0 MiB (hits 62%), peak memory 400.0 MiB: student 300.0 MiB, teacher1 100.0 MiB"
    assert whole.line() == f"{said}, 1.500 s a step, waited 25%"


def test_nothing_is_claimed_of_a_cache_that_nobody_asked() -> None:
    usage = Usage().after(StepReport(0, 1.0))
    assert "hits" not in usage.line() and "perf/cache_hit_share" not in usage.metrics()


def test_roles_in_one_process_count_once() -> None:
    one, other = ProcessMemory("a", 1, 300, 7), ProcessMemory("b", 1, 100)
    memory = {"student": one, "teacher1": one, "teacher2": other}
    assert shared_by_role(memory) == {"student+teacher1": one, "teacher2": other}
    usage = Usage().surveyed([], memory)
    assert usage.metrics()["perf/peak_memory_bytes"] == 400
    assert usage.gpu_bytes == {"student+teacher1": 7}
    assert not any("+" in name for name in usage.metrics())


def test_on_several_nodes_each_says_what_it_sent_and_how_long_it_waited() -> None:
    first = Usage().surveyed([], {}, [Traffic("10.0.0.1", 0, 3 * MIB, 1.5), Traffic("10.0.0.2", 3 * MIB)])
    again = Usage.of_notes({"usage": json.loads(json.dumps(first.to_dict()))})
    whole = again.surveyed([], {}, [Traffic("10.0.0.1", 0, MIB, 1.0), Traffic("b c-1f", MIB)])
    assert whole.nodes["10.0.0.1"] == {"sent_bytes": 0, "received_bytes": 4 * MIB, "waited_seconds": 2.5}
    assert whole.line().endswith(
        "; 10.0.0.1 sent 0.0 KiB, received 4.0 MiB, waited 2.5 s"
        "; 10.0.0.2 sent 3.0 MiB, received 0.0 KiB, waited 0.0 s; "
        "b c-1f sent 1.0 MiB, received 0.0 KiB, waited 0.0 s"
    )
    assert whole.metrics()["perf/node_waited_seconds/10.0.0.1"] == 2.5
    assert whole.metrics()["perf/node_sent_bytes/b_c-1f"] == MIB


def test_one_node_is_not_told_apart() -> None:
    usage = Usage().surveyed([], {}, [Traffic("here", 5), Traffic("here", 0, 5, 1.0)])
    assert usage.nodes == {} and "here" not in usage.line()


def test_the_peak_of_this_process_begins_anew() -> None:
    big = np.ones(200 * MIB, dtype=np.uint8)
    assert process_memory().peak_bytes >= resident_bytes() - MIB
    before = process_memory().peak_bytes
    del big
    if reset_peak():
        assert process_memory().peak_bytes < before - 150 * MIB
    else:
        assert process_memory().peak_bytes >= before
