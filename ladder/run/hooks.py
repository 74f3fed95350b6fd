"""The loop of a training, and who takes part in it besides teachers and student: what is logged and noted of its steps,
and what ends it at a checkpoint. The laws that judge it are in ``ladder.setup.laws``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ladder.errors import Interrupted, RunError
from ladder.registry import Registry
from ladder.report.console import Progress
from ladder.setup.context import Run
from ladder.setup.usage import Usage
from ladder.system.stopping import GO_ON
from ladder.train.spec import StepReport

if TYPE_CHECKING:
    from ladder.setup.laws import Vigil

LOG_EVERY = 20
"""Steps between two writes of metrics to the registry."""


class Hook:
    """Takes part in a training. What one does not care about it leaves as it is here.

    All hooks of a training are called in their order, at each of the three points.
    """

    def after_step(self, report: StepReport) -> None:
        """A step is done."""

    def before_checkpoint(self, done: int) -> None:
        """So many steps are done, and their checkpoint is about to be written."""

    def after_checkpoint(self, done: int) -> None:
        """It is written. A run that ends here goes on from it."""


def run_legs(
    leg: Callable[[int], Iterable[StepReport]],
    checkpoint: Callable[[], object],
    hooks: Sequence[Hook],
    done: int,
    total: int,
) -> None:
    """Train up to ``total`` steps, and write a checkpoint after each leg.

    Args:
        leg: trains one or more steps from this one on, and reports each.
        done: steps that are done already.
    """
    while done < total:
        for report in leg(done):
            done = report.step + 1
            for hook in hooks:
                hook.after_step(report)
        for hook in hooks:
            hook.before_checkpoint(done)
        checkpoint()
        for hook in hooks:
            hook.after_checkpoint(done)


@dataclass(frozen=True)
class Shown(Hook):
    """Shows each step."""

    progress: Progress

    def after_step(self, report: StepReport) -> None:
        self.progress.step(report)


@dataclass
class Journal(Hook):
    """Logs the metrics of all steps, adds up what they took, and notes it for a run that goes on.

    Args:
        laws: who judges the steps before they come here.
        survey: adds to a usage what the actors say now of their caches and processes.
        seconds: that the run trained up to the last checkpoint, in all its calls; ``tokens`` and ``usage`` up to now.
        rows: steps whose metrics are not logged yet.
    """

    run: Run
    registry: Registry
    laws: Vigil
    survey: Callable[[Usage], Usage]
    seconds: float
    tokens: int
    usage: Usage
    rows: list[StepReport] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, registry: Registry, laws: Vigil, survey: Callable[[Usage], Usage], done: int) -> Journal:
        """Begin, or go on from what was noted with the checkpoint of so many steps."""
        noted = run.marked(done)
        return cls(
            run, registry, laws, survey, noted.get("seconds", 0.0), noted.get("tokens", 0), Usage.of_notes(noted)
        )

    def __post_init__(self) -> None:
        self._since, self._surveyed = time.monotonic(), self.usage

    def after_step(self, report: StepReport) -> None:
        self.rows.append(report)
        self.tokens += report.tokens
        self.usage = self.usage.after(report)
        if len(self.rows) >= LOG_EVERY or self.laws.broken:
            self._log()

    def before_checkpoint(self, done: int) -> None:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        # The actors are asked first, because they can die, and a step that comes again would be logged twice. The
        # checkpoint comes last: what is known of its steps is not learned again by a run that goes on from it.
        self._surveyed = self.survey(self.usage)
        self._log()
        usage, found = self._surveyed.to_dict(), self.laws.to_dict()
        self.run.mark(done, seconds=self.seconds, tokens=self.tokens, usage=usage, watch=found)

    def after_checkpoint(self, done: int) -> None:
        self.run.note(disk_bytes=disk_bytes(self.run, self._surveyed))

    def _log(self) -> None:
        rows, self.rows = self.rows, []
        self.registry.log_steps(self.run.notes()["mlflow_run"], [(report.step, metrics_of(report)) for report in rows])


@dataclass(frozen=True)
class Stop(Hook):
    """Ends a run that was told to stop.

    Args:
        stopped: whether it was.
    """

    stopped: Callable[[], bool]
    total: int

    def after_checkpoint(self, done: int) -> None:
        if self.stopped():
            raise Interrupted(f"stopped after step {done} of {self.total}, with a checkpoint of it", remedy=GO_ON)


@dataclass(frozen=True)
class Minutes(Hook):
    """Ends a run that trained longer than its budget allows.

    Args:
        most: minutes; None allows all.
    """

    most: float | None
    journal: Journal
    total: int

    def after_checkpoint(self, done: int) -> None:
        seconds = self.journal.seconds
        if self.most is not None and seconds > 60 * self.most and done < self.total:
            raise RunError(
                f"trained {seconds / 60:.1f} minutes, {done} of {self.total} steps",
                where="budget.max_minutes",
                remedy="allow more minutes or plan fewer steps",
            )


def disk_bytes(run: Run, usage: Usage) -> int:
    """Bytes of the run's folder, and of the signals that were stored on disk."""
    return run.size() + (usage.cache_bytes if run.request.manifest.runtime.signal_cache == "disk" else 0)


def metrics_of(report: StepReport) -> dict[str, float]:
    """A step as metrics of the MLflow run."""
    tokens = max(1, sum(report.routes.values()))
    routes = {f"route/{name}": count / tokens for name, count in report.routes.items()}
    terms = {f"loss/{name}": value for name, value in report.terms.items()}
    if report.js_uncertain is not None:
        routes["route/js_uncertain"] = report.js_uncertain
    spent = {name: getattr(report, name) for name in ("wire_bytes", "seconds", "waited")}
    perf = {f"perf/{name}": float(value) for name, value in spent.items()}
    measured = {"kl": report.kl, "entropy": report.entropy}
    terms |= {name: value for name, value in measured.items() if value is not None}
    return {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm, **terms, **routes, **perf}
