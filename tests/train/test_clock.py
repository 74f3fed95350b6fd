"""Time in steps and between them."""

from __future__ import annotations

import pytest

from ladder.train import spec


def test_waiting_is_from_the_end_of_the_last_work_to_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.0, 12.0, 15.0, 16.0, 16.0, 20.0, 21.0])
    monkeypatch.setattr(spec.time, "perf_counter", lambda: next(ticks))
    watch = spec.StepClock()
    assert (watch.begin(), watch.end()) == (0.0, 2.0)
    assert (watch.begin(), watch.end()) == (3.0, 1.0)
    watch.idle()  # a checkpoint was written until 20
    assert watch.begin() == 1.0
