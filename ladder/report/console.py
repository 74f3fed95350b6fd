"""What a run prints: plain lines in a pipe, a live line on a terminal, each verdict gate by gate, and what became of
each manifest, in words and as the exit code of the command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console as Rich
from rich.table import Table
from rich.text import Text

from ladder.errors import Blocked, Busy, LadderError
from ladder.gates import Comparison, GateReport, GateResult
from ladder.manifest import Request
from ladder.report.charts import Row, Scale, forests
from ladder.report.live import Meter, Task, Ticker
from ladder.report.text import table
from ladder.system import patience
from ladder.system.files import reason

if TYPE_CHECKING:
    from ladder.registry import Generation
    from ladder.train.spec import StepReport

EXIT_CODES = {"PROMOTED": 0, "FAILED": 1, "BLOCKED": 1, "REJECTED": 3, "PASSED": 4}
_SEVERITY = (0, 4, 3, 2, 1)


@dataclass(frozen=True)
class Outcome:
    """What became of one manifest.

    Args:
        child: its name.
        verdict: PROMOTED, REJECTED, PASSED, FAILED or BLOCKED.
        detail: one sentence.
        ref: the generation, where one was recorded.
        trained: False if it had been decided before this call.
        exit_code: 0 promoted, 1 failed, 2 usage, 3 rejected, 4 passed but not promoted.
    """

    child: str
    verdict: str
    detail: str
    exit_code: int
    ref: str | None = None
    trained: bool = True


class Ended(Protocol):
    """Whatever became of one manifest, or of another piece of work."""

    @property
    def exit_code(self) -> int: ...


def worst(ended: Iterable[Ended]) -> int:
    """Exit code over several manifests, from what became of each."""
    return max((one.exit_code for one in ended), key=_SEVERITY.index, default=0)


def outcome_of(generation: Generation, *, trained: bool, answers: Mapping[str, int] | None = None) -> Outcome:
    """Of a generation that was recorded.

    Args:
        answers: how many were ``lost`` and ``gained`` beside its parent; None where that was not noted, or there is no
            parent.
    """
    detail = ", ".join(generation.failed_gates) if generation.failed_gates else ""
    verdict = str(generation.verdict)
    why = f"see `ladder why {generation.ref}`"
    changed = f"; answers: {answers['lost']} lost, {answers['gained']} gained" if answers else ""
    sentence = {
        "PROMOTED": f"passed all gates{changed}{f'; {why}' if answers else ''}",
        "PASSED": f"passed all gates{changed}; promote it with `{promote_command(generation)}`",
        "REJECTED": f"failed {detail}{changed}; HEAD stays where it is; {why}",
    }.get(verdict, verdict)
    again = "" if trained else " (decided before; nothing was trained)"
    return Outcome(str(generation.name), verdict, sentence + again, EXIT_CODES[verdict], generation.ref, trained)


def failure_of(child: str, error: LadderError | OSError) -> Outcome:
    """Of a manifest that an error ended."""
    if isinstance(error, LadderError):
        # Nothing of its own went wrong where it waits for a parent, or for who is at work on the family.
        verdict = "BLOCKED" if isinstance(error, Blocked | Busy) else "FAILED"
        return Outcome(child, verdict, str(error), error.exit_code)
    # A full disk, a folder that may not be read.
    return Outcome(child, "FAILED", f"{reason(error)} (the same command goes on once that is mended)", 1)


def is_left_to_people(request: Request) -> bool:
    """Whether ladder does not promote it by itself: a branch, or a child that needs approvals."""
    return request.manifest.evolution_request.branch or request.manifest.laws.approvals > 0


def promote_command(generation: Generation) -> str:
    """What makes a generation that passed HEAD."""
    keys = generation.approvals
    return f"ladder promote {generation.ref}" + (f" --key NAME, by {keys} different keys" if keys else "")


def outcome_text(outcomes: Sequence[Outcome]) -> str:
    """One aligned line for each outcome, and a sentence where nothing was left to do."""
    lines = [(outcome.ref or str(outcome.child), str(outcome.verdict), outcome.detail) for outcome in outcomes]
    trained = any(outcome.trained for outcome in outcomes)
    nothing = "" if trained else "Nothing to do: every manifest was decided before. Nothing was trained."
    return "\n".join(part for part in (table(lines, least={0: 15, 1: 8}), nothing) if part)


_WIDTH = 41
_SHOWN = 60
"""Characters of a prompt or answer."""


def gate_line(result: GateResult) -> str:
    """One gate in a sentence."""
    mark = ("passed" if result.passed else "FAILED") if result.applicable else "-"
    return f"{mark} {result.name}: {result.detail}"


def verdict_text(report: GateReport, comparison: Comparison | None) -> str:
    """Gates, forest plot, and what was lost."""
    plots = [table(list(_forest(rows))) for rows in forests(report) if rows]
    lost = comparison_text(comparison) if comparison else ""
    parts = ["\n".join(map(gate_line, report.results)), "\n".join(plots), lost]
    return "\n\n".join(part for part in parts if part)


def comparison_text(comparison: Comparison) -> str:
    """How many answers were lost and gained, the worst of those lost, and some of those gained."""
    lines = [f"of {comparison.n} probes {comparison.lost} lost and {comparison.gained} gained"]
    kinds = (("", comparison.worst, comparison.lost), ("gained: ", comparison.won, comparison.gained))
    for kind, listed, count in kinds:
        for one in listed:
            lines += [f"  {kind}{one.part}: {_short(one.prompt)}"]
            lines += [f"    expected {_short(one.expected)}, was {_short(one.parent)}, is {_short(one.child)}"]
        lines += [f"  and {count - len(listed)} more {kind.strip(': ') or 'lost'}"] * (count > len(listed))
    return "\n".join(lines)


def _forest(rows: list[Row]) -> Iterable[tuple[str, str, str]]:
    """A line a row: ``|`` is no difference, ``:`` what may be lost, ``o`` the figure between its bounds."""
    scale = Scale.of(rows)
    for row in rows:
        track = [" "] * _WIDTH
        low, high = _place(scale, row.low), _place(scale, row.high)
        track[low : high + 1] = "-" * (high + 1 - low)
        if row.margin is not None:
            track[_place(scale, row.margin)] = ":"
        track[_place(scale, 0.0)] = "|"
        track[_place(scale, row.value)] = "o"
        yield row.label, "".join(track), row.text


def _place(scale: Scale, value: float) -> int:
    return min(_WIDTH - 1, int(scale(value) / 100 * _WIDTH))


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


_STYLES = {"==": "bold", "   passed ": "green", "   FAILED ": "bold red", "   warning: ": "yellow"}
"""How lines are shown on a terminal, by how they begin."""


def _line(at: str, text: str) -> Table:
    """A line on a terminal: long ones go on below their own text, and the verdicts have colours."""
    style = next((style for start, style in _STYLES.items() if text.startswith(start)), "")
    grid, inside = Table.grid(), 3 * (not text.startswith("=="))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(at + " " * inside, style="dim"), Text(text[inside:], style=style))
    return grid


class Progress(Protocol):
    """Where a training reports its steps."""

    def step(self, report: StepReport) -> None: ...


@dataclass(frozen=True)
class Line:
    """A sentence of a run: what begins, what was found, what is worth knowing."""

    text: str


@dataclass(frozen=True)
class Step:
    """One step of a training.

    Args:
        child: who is trained.
        step: how many steps are done with it, from 1; ``steps`` are all.
        loss: the loss that it lowered.
        lr: learning rate.
        tokens: through the student's backbone.
        seconds: it took.
        routes: tokens by what they were taught by, such as ``gold``, ``blended``, ``dream`` and ``written``.
    """

    child: str
    step: int
    steps: int
    loss: float
    lr: float
    tokens: int
    seconds: float
    routes: Mapping[str, int]


Event = Line | Step | GateResult | Outcome
"""What happens in a run, as data: the console says of it what people read. A gate comes when it is decided, and an
outcome when its manifest is over."""


@dataclass(frozen=True)
class _Followed:
    """The steps of one training, for the meter and for whoever follows the run."""

    meter: Meter
    tell: Callable[[Event], object]

    def step(self, report: StepReport) -> None:
        self.meter.step(report)
        done, told = report.step + 1, (report.loss, report.lr, report.tokens, report.seconds, report.routes)
        self.tell(Step(self.meter.child, done, self.meter.steps, *told))


class Console:
    """Prints to standard error, so that standard output stays a verb's own answer.

    Args:
        tell: is handed every event, in the thread that does the work; quiet or not.
    """

    def __init__(self, *, quiet: bool = False, tell: Callable[[Event], object] | None = None) -> None:
        patience.end()
        self.tell = tell or (lambda event: None)
        self.rich = Rich(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.began = time.monotonic()
        self.ticker = Ticker(self.rich, lambda line: self._show(f"   {line}"))
        self.listener: Callable[[str], None] | None = None
        self.going: list[Task | Meter] = []
        self.decided: tuple[GateResult, ...] = ()

    @contextmanager
    def heard_by(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Also hand every line that is said meanwhile to a listener, such as the log of a run; quiet or not."""
        self.listener, self.decided = listener, ()
        try:
            yield
        finally:
            self.listener = None

    def phase(self, text: str) -> None:
        """A new part of the work begins."""
        self._print(f"== {text}")
        self.tell(Line(text))

    def say(self, text: str) -> None:
        """Something worth knowing inside a part."""
        self._print(f"   {text}")
        self.tell(Line(text))

    def gates(self, report: GateReport) -> None:
        """The verdict, gate by gate."""
        self.decided = tuple(report.results)
        for result in report.results:
            self._print(f"   {gate_line(result)}")
            self.tell(result)

    @contextmanager
    def working(
        self,
        text: str,
        total: float | None = None,
        count: Callable[[], float] | None = None,
        *,
        after: float | None = None,
    ) -> Iterator[Task]:
        """Say what begins, and go on to tell how far it is until it ends.

        Args:
            total, count: as ``Task``.
            after: seconds in which nothing is said, because it may be over by then.
        """
        task = Task(text, total, count)
        if after is None:
            self.say(text)
        with self._going(task), nullcontext() if self.quiet else self.ticker.telling(task, after):
            yield task

    @contextmanager
    def progress(self, child: str, steps: int) -> Iterator[Progress]:
        """Follow one training of ``steps`` steps."""
        meter = Meter(child, steps)
        with self._going(meter), nullcontext() if self.quiet else self.ticker.telling(meter):
            yield _Followed(meter, self.tell)
        if meter.first is not None:
            self.say(meter.line())

    @contextmanager
    def _going(self, task: Task | Meter) -> Iterator[None]:
        """Let whoever looks find it, quiet or not."""
        self.going.append(task)
        try:
            yield
        finally:
            self.going.remove(task)

    def _print(self, text: str) -> None:
        if self.listener:
            self.listener(text.strip())
        self._show(text)

    def _show(self, text: str) -> None:
        if not self.quiet:
            self.ticker.said = time.monotonic()
            at = f"{time.monotonic() - self.began:6.1f}s "
            if self.rich.is_terminal:
                self.rich.print(_line(at, text), soft_wrap=False)
            else:
                self.rich.print(Text(at + text))
            sys.stderr.flush()
