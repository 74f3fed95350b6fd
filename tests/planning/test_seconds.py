"""Step time by hand."""

from __future__ import annotations

import pytest

from ladder.planning.timing import ProcessSeconds, step_seconds


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
