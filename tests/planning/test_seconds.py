"""Step time by hand."""

from __future__ import annotations

import pytest

from ladder.planning.timing import EXCHANGED, ProcessSeconds, exchange_seconds, step_seconds


def test_with_a_core_for_everyone_the_slowest_sets_the_pace() -> None:
    assert step_seconds(0.3, [0.1, 0.2], threads=1, cores=8) == 0.3
    assert step_seconds(0.1, [0.1, 0.2], threads=1, cores=8) == 0.2


def test_too_few_cores_make_it_the_sum_of_all_work() -> None:
    assert step_seconds(0.3, [0.2, 0.2], threads=1, cores=2, courier=0.1) == pytest.approx(0.4)
    assert step_seconds(0.3, [0.2, 0.2], threads=2, cores=2) == pytest.approx(0.7)


def test_without_teachers_the_student_alone_counts() -> None:
    assert step_seconds(0.3, [], threads=2, cores=2) == pytest.approx(0.3)


def test_what_is_cached_is_only_recalled() -> None:
    assert ProcessSeconds(reading=1.0, recalling=0.1).mean(read_share=0.2) == pytest.approx(0.28)


def test_ranks_divide_the_work_where_cores_suffice_and_bring_their_gradients_together() -> None:
    assert step_seconds(0.8, [0.1], threads=1, cores=16, ranks=4, exchange=0.05) == pytest.approx(0.25)
    # Two cores do the work of two ranks no sooner than that of one.
    assert step_seconds(0.8, [], threads=2, cores=2, ranks=2, exchange=0.05) == pytest.approx(0.85)
    assert step_seconds(0.8, [0.5], threads=1, cores=16, ranks=4) == 0.5


def test_a_ring_sends_everything_round_twice() -> None:
    size = int(EXCHANGED["cpu"])
    assert exchange_seconds(size, 1, "cpu", sharded=False) == 0
    assert exchange_seconds(size, 2, "cpu", sharded=False) == pytest.approx(1.0)
    assert exchange_seconds(size, 4, "cpu", sharded=False) == pytest.approx(1.5)
    assert exchange_seconds(size, 4, "cpu", sharded=True) == pytest.approx(2.25)
    assert exchange_seconds(size, 4, "cuda:1", sharded=False) < exchange_seconds(size, 4, "cpu", sharded=False)
