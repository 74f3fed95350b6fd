"""Where a student's time goes: into steps, or into waiting for what the next one needs."""

from __future__ import annotations

import time


class StepClock:
    """Told when a step begins and ends, and when something else is over, such as a checkpoint. Times in seconds."""

    def __init__(self) -> None:
        self._began = 0.0
        self._idle_since: float | None = None

    def begin(self) -> float:
        """A step begins; returns how long nothing was done before it, 0 for the first."""
        self._began = time.perf_counter()
        return 0.0 if self._idle_since is None else self._began - self._idle_since

    def end(self) -> float:
        """The step is over; returns how long it took."""
        self.idle()
        return time.perf_counter() - self._began

    def idle(self) -> None:
        """From here on nothing is done until the next step begins."""
        self._idle_since = time.perf_counter()
