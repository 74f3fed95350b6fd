"""Pairing and medians, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.timing import Spread, best_times, paired_rounds, ratio


class Clock:
    """Time that passes only when a contender works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def worker(self, name: str, seconds: list[float]) -> Callable[[], None]:
        left = iter(seconds)

        def work() -> None:
            self.calls.append(name)
            self.now += next(left)

        return work


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_contenders_take_turns_and_the_warm_up_does_not_count(clock: Clock) -> None:
    workers = {"a": clock.worker("a", [9.0, 1.0, 2.0]), "b": clock.worker("b", [7.0, 3.0, 4.0])}
    seconds = paired_rounds(workers, rounds=2, warmup=1, clock=lambda: clock.now)
    assert clock.calls == ["a", "b"] * 3
    assert seconds == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_a_ratio_is_taken_within_each_round() -> None:
    """Rounds in which the machine was slow slow both: the ratio of the medians would be 20 / 4 = 5."""
    seconds = {"a": [2.0, 20.0, 200.0], "b": [1.0, 10.0, 4.0]}
    assert ratio(seconds, "a", "b") == Spread(median=2.0, low=2.0, high=50.0)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 100.0]) == Spread(3.5, 1.0, 100.0)


def test_contenders_of_different_rounds_are_refused() -> None:
    with pytest.raises(ValueError):
        ratio({"a": [1.0, 2.0], "b": [1.0]}, "a", "b")


def test_the_best_times_are_the_smallest_with_the_fastest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {"slow": [2.0, 2.5], "best once": [5.0, 1.0], "steady": [1.5, 1.5]}
    monkeypatch.setattr("benchmarks.timing.paired_rounds", lambda contenders, repeats: timed)
    found = best_times({name: lambda: None for name in timed})
    assert list(found.items()) == [("best once", 1.0), ("steady", 1.5), ("slow", 2.0)]
