"""Work under way, as people see it: what is done, how much of it, and the time that is left, again and again until it
ends. A terminal has a live line for it; a pipe gets a line every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.console import Console as Rich
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ladder.report.text import duration_text
from ladder.system.progress import time_left

if TYPE_CHECKING:
    from ladder.train.spec import StepReport

EVERY = 5.0
"""Seconds between two lines about one piece of work in a pipe."""
SOON = 2.0
"""Seconds in which a verb that may be over by then says nothing."""
_LOOK = 0.25
"""Seconds between two looks at whether a line is due."""


class Task:
    """One piece of work.

    Args:
        text: what is done.
        total: units of it; None where nobody counts them.
        count: says how many are done, where it is not told of them (``advance``).
    """

    def __init__(self, text: str, total: float | None = None, count: Callable[[], float] | None = None) -> None:
        self.text, self.total, self.count = text, total, count
        self.began = self.moved = time.monotonic()
        self.done = 0.0

    def advance(self, units: float = 1.0) -> None:
        """So many more units are done."""
        self.done, self.moved = self.done + units, time.monotonic()

    def line(self) -> str:
        """What is done, how much of it, and the time that is left; before that is known, the time that has passed."""
        if self.count is not None and (done := self.count()) > self.done:
            self.done, self.moved = done, time.monotonic()  # And not by how much more: others may ask meanwhile.
        now = time.monotonic()
        if self.total is None or self.done <= 0:
            return f"{self.text}: {seconds_text(now - self.began)} so far"
        left = time_left(self.done, self.total, self.moved - self.began, now - self.moved)
        return f"{self.text}: {min(self.done, self.total):,.0f} of {self.total:,.0f}{left_text(left)}"


class History:
    """A figure of many steps as means over stretches of equal length, at most ``most`` of them: where there would be
    more, each two become one."""

    def __init__(self, most: int = 240) -> None:
        self.most, self.width = most, 1
        self.means: list[float] = []
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """One more step."""
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self.width:
            return
        means = [*self.means, self._sum / self.width]
        self._sum, self._count = 0.0, 0
        if len(means) > self.most:
            # An odd one is half of the next stretch.
            odd = means.pop() if len(means) % 2 else None
            means = [(one + other) / 2 for one, other in zip(means[::2], means[1::2], strict=True)]
            self._sum, self._count = (0.0, 0) if odd is None else (odd * self.width, self.width)
            self.width *= 2
        self.means = means  # In one move: another thread may read it.


class Meter:
    """Running figures of one training, which is a piece of work of so many steps."""

    def __init__(self, child: str, steps: int) -> None:
        self.child, self.steps = child, steps
        self.began = self.moved = time.monotonic()
        self.first: int | None = None
        self.done = self.tokens = self.wire_bytes = 0
        self.loss = float("nan")
        self.ece: float | None = None
        self.seconds = self.waited = 0.0
        self.routes: dict[str, int] = {}
        self.losses, self.errors = History(), History()

    def step(self, report: StepReport) -> None:
        """Count one step in. The first one, which warms up and may compile, is in no rate."""
        self.moved = time.monotonic()
        if self.first is None:
            self.began, self.first = self.moved, report.step
        else:
            self.tokens += report.tokens
        self.done, self.loss = report.step + 1, report.loss
        self.wire_bytes += report.wire_bytes
        self.seconds, self.waited = self.seconds + report.seconds, self.waited + report.waited
        self.losses.add(report.loss)
        if report.ece is not None:
            self.ece = report.ece
            self.errors.add(report.ece)
        for name, count in report.routes.items():
            self.routes[name] = self.routes.get(name, 0) + count

    @property
    def rate(self) -> float | None:
        """Tokens a second; None before they were measured."""
        passed = self.moved - self.began
        return self.tokens / passed if self.tokens and passed > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until the last step; None before there is a pace."""
        before, now = (self.first or 0) + 1, time.monotonic()
        return time_left(self.done - before, self.steps - before, self.moved - self.began, now - self.moved)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the tokens by route, 0 to 1; routes that nothing took are left out."""
        routes = dict(self.routes)
        total = max(1, sum(routes.values()))
        return {name: count / total for name, count in routes.items() if count}

    def line(self) -> str:
        """Step, loss, share of tokens by route and, once they were measured, tokens a second and time left."""
        if self.first is None:
            return f"{self.child} first step: {seconds_text(time.monotonic() - self.began)} so far"
        rate = f"  {self.rate:,.0f} tok/s" if self.rate is not None else ""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        told = left_text(self.left).removeprefix(", ") if self.done < self.steps else ""
        parts = (f"{self.child} step {self.done}/{self.steps}  loss {self.loss:.4f}{rate}", shares, told)
        return "  ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """What is known now, as plain data for strict JSON; of this call, where the run was cut off before."""
        return {
            "step": self.done,
            "steps": self.steps,
            "loss": self.loss if isfinite(self.loss) else None,
            "losses": [value for value in self.losses.means if isfinite(value)],
            "ece": self.ece,
            "eces": list(self.errors.means),
            "routes": self.shares,
            "tokens_a_second": self.rate,
            "wire_bytes": self.wire_bytes,
            "seconds": self.seconds,
            "waited": self.waited,
            "left": self.left,
        }


def seconds_text(seconds: float) -> str:
    """Whole seconds, or minutes from 90 of them on."""
    return f"{seconds:.0f} s" if seconds < 90 else duration_text(seconds)


def left_text(left: float | None) -> str:
    """Seconds that are left, as the end of a line; empty where they are not known."""
    return "" if left is None else f", {seconds_text(left) if left >= 1 else 'a moment'} left"


@dataclass
class _Open:
    """A piece of work that goes on.

    Args:
        due: moment from which on it is told of (``time.monotonic``); ``told`` whether it was.
    """

    task: Task | Meter
    due: float
    told: bool


class Ticker:
    """Tells again and again of the innermost piece of work that goes on.

    Args:
        rich: where it tells: a live line where that is a terminal.
        say: prints one line elsewhere.
    """

    def __init__(self, rich: Rich, say: Callable[[str], object]) -> None:
        self.rich, self.say = rich, say
        self.said = time.monotonic()
        self._open: list[_Open] = []
        self._spinner = Spinner("line")

    @contextmanager
    def telling(self, task: Task | Meter, after: float | None = None) -> Iterator[None]:
        """Tell of this one until it ends.

        Args:
            after: seconds from which on its first line is due; None where somebody has said what begins.
        """
        self._open.append(_Open(task, time.monotonic() + (after or 0.0), after is None))
        try:
            with self._running() if len(self._open) == 1 else nullcontext():
                yield
        finally:
            self._open.pop()

    @contextmanager
    def _running(self) -> Iterator[None]:
        if self.rich.is_terminal:
            # Standard output is a verb's answer, and may be a file while standard error is a terminal.
            with Live(
                get_renderable=self._shown,
                console=self.rich,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            ):
                yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._tick, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _shown(self) -> Text | Spinner:
        if not self._open or time.monotonic() < self._open[-1].due:
            return Text()
        self._spinner.text = Text(self._open[-1].task.line())
        return self._spinner

    def _tick(self, over: threading.Event) -> None:
        # A pipe that nobody reads any more is for the work itself to find out.
        with suppress(OSError, ValueError):
            while not over.wait(_LOOK):
                now, innermost = time.monotonic(), self._open[-1:]
                for one in innermost:
                    if now >= one.due and (not one.told or now - self.said >= EVERY):
                        one.told = True
                        self.say(one.task.line())
