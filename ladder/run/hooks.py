"""The loop of a training, and who takes part in it besides teachers and student: what judges its steps by the laws,
what is logged and noted of them, and what ends it at a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.actors.remote import StudentGroup
from ladder.actors.session import hear
from ladder.errors import Halted, Interrupted, LadderError, RunError
from ladder.exam import Sampling, ask
from ladder.laws import TRAINING_SAMPLES, TrainingRules, Violation
from ladder.registry import Registry
from ladder.report.console import Progress
from ladder.setup import Run, Usage, data_of, metric_path, own_probes, prompts_of, training_rules
from ladder.system.stopping import GO_ON
from ladder.train.receipts import Receipts
from ladder.train.spec import StepReport

LOG_EVERY = 20
"""Steps between two writes of metrics to the registry."""
_REMEDY = (
    "nothing was recorded and HEAD stays; change data, training_params or the law: a changed manifest is another run"
)


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
    settle: Callable[[], object] = lambda: None,
) -> None:
    """Train up to ``total`` steps, and write a checkpoint after each leg.

    Args:
        leg: trains one or more steps from this one on, and reports each.
        done: steps that are done already.
        settle: waits for a checkpoint that is still being written: after the first step behind it, or before a hook
            ends the run.
    """
    settled = True
    while done < total:
        for report in leg(done):
            done = report.step + 1
            if not settled:
                settle()
                settled = True
            for hook in hooks:
                hook.after_step(report)
        for hook in hooks:
            hook.before_checkpoint(done)
        checkpoint()
        settled = False
        try:
            for hook in hooks:
                hook.after_checkpoint(done)
        except LadderError:
            settle()
            raise


@dataclass(frozen=True)
class Shown(Hook):
    """Shows each step."""

    progress: Progress

    def after_step(self, report: StepReport) -> None:
        self.progress.step(report)


@dataclass
class Monitor(Hook):
    """Judges the steps of one run, and what the student writes, by the laws of its manifest.

    It only judges: ``Halt`` ends the run, once its steps are logged.

    Args:
        openings: what the texts begin with that the student writes, as ids.
        sample: lets the student go on from these.
        broken: what must halt the run.
    """

    run: Run
    rules: TrainingRules
    openings: list[list[int]]
    sample: Callable[[list[list[int]], Sampling], list[str]]
    broken: list[Violation] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, tokenizer: PreTrainedTokenizerFast, group: StudentGroup, done: int) -> Monitor:
        """Begin, or go on from what was noted with the checkpoint of so many steps."""
        rules = training_rules(run, run.marked(done))
        return cls(run, rules, _openings(run, tokenizer), lambda *asked: hear(group, group.sample(*asked))[0])

    @property
    def every(self) -> int | None:
        """Steps between two samples; None where none are read."""
        laws = self.run.request.manifest.laws.training
        return laws.sample_every if laws else None

    def leg(self, done: int, total: int, checkpoint_every: int) -> range:
        """The steps from here to the next checkpoint, sample or the end."""
        stops = [checkpoint_every, *([self.every] if self.every else [])]
        return range(done, min(total, *((done // stop + 1) * stop for stop in stops)))

    def after_step(self, report: StepReport) -> None:
        """Judge one step."""
        self._count(self.rules.see(report))

    def before_checkpoint(self, done: int) -> None:
        """Judge what the student writes after so many steps, where it is time."""
        if self.every is not None and done % self.every == 0:
            self._count(self.rules.read(done, self.sample(self.openings, _sampling(self.run, done))))

    def to_dict(self) -> dict[str, Any]:
        """What the run notes at a checkpoint."""
        return self.rules.to_dict()

    def _count(self, violations: list[Violation]) -> None:
        if self.run.request.manifest.laws.on_broken == "halt":
            self.broken += violations


@dataclass(frozen=True)
class Halt(Hook):
    """Ends a run by what the laws found, and notes that it is over.

    It comes after whoever logs the steps and, of a checkpoint, after that is written: the last steps of a halted run
    are what a person wants to see.
    """

    laws: Monitor

    def after_step(self, report: StepReport) -> None:
        self._end()

    def after_checkpoint(self, done: int) -> None:
        self._end()

    def _end(self) -> None:
        """
        Raises:
            Halted: a law was broken, and the manifest says halt.
        """
        if self.laws.broken:
            self.laws.run.note(halted=vars(self.laws.broken[0]))
            raise _halt(self.laws.broken[0], "halted the run")


@dataclass
class Journal(Hook):
    """Logs the metrics of all steps, adds up what they took, and notes it for a run that goes on.

    Args:
        laws: who judges the steps before they come here.
        survey: adds to a usage what the actors say now of their caches and processes.
        seconds: that the run trained up to the last checkpoint, in all its calls; ``tokens`` and ``usage`` up to now.
        receipts: what each source of the teachers was worth, up to now.
        rows: steps whose metrics are not logged yet.
    """

    run: Run
    registry: Registry
    laws: Monitor
    survey: Callable[[Usage], Usage]
    seconds: float
    tokens: int
    usage: Usage
    receipts: Receipts
    rows: list[StepReport] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, registry: Registry, laws: Monitor, survey: Callable[[Usage], Usage], done: int) -> Journal:
        """Begin, or go on from what was noted with the checkpoint of so many steps."""
        noted = run.marked(done)
        return cls(
            run,
            registry,
            laws,
            survey,
            noted.get("seconds", 0.0),
            noted.get("tokens", 0),
            Usage.of_notes(noted),
            Receipts.of_notes(noted),
        )

    def __post_init__(self) -> None:
        self._since, self._surveyed, self._loss = time.monotonic(), self.usage, float("nan")

    def after_step(self, report: StepReport) -> None:
        self.rows.append(report)
        self._loss = report.loss
        self.tokens += report.tokens
        self.usage = self.usage.after(report)
        self.receipts.see(report.step, report.receipts)
        if len(self.rows) >= LOG_EVERY or self.laws.broken:
            self._log()

    def before_checkpoint(self, done: int) -> None:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        # The actors are asked first, because they can die, and a step that comes again would be logged twice. The
        # checkpoint comes last: what is known of its steps is not learned again by a run that goes on from it.
        self._surveyed = self.survey(self.usage)
        self._log()
        usage, found, receipts = self._surveyed.to_dict(), self.laws.to_dict(), self.receipts.to_notes()
        self.run.mark(done, seconds=self.seconds, tokens=self.tokens, usage=usage, watch=found, receipts=receipts)

    def after_checkpoint(self, done: int) -> None:
        self.run.note(disk_bytes=disk_bytes(self.run, self._surveyed))
        took = f"{self.seconds:.0f} s and {self.tokens:,} tokens in all"
        self.run.log(f"checkpoint of step {done}: loss {self._loss:.4f}, {took}")

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
    names = ("kl", "entropy", "ece", "temperature", "own_temperature")
    measured = {name: getattr(report, name) for name in names}
    measured |= {f"capacity/{name}": value for name, value in report.capacity.items()}
    terms |= {name: value for name, value in measured.items() if value is not None}
    worth = {
        f"teacher/{metric_path(name)}/{figure}": value
        for name, receipt in report.receipts.items()
        for figure, value in receipt.figures().items()
    }
    return {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm, **terms, **routes, **worth, **perf}


def check_not_halted(run: Run) -> None:
    """Refuse to go on with a run that a law halted.

    Raises:
        Halted: it was.
    """
    if halted := run.notes().get("halted"):
        raise _halt(Violation(**halted), "was halted before")


def _openings(run: Run, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """What texts begin with: the start token, and what the exam will ask for this child and its laws."""
    if run.request.manifest.laws.training is None or run.request.manifest.laws.training.sample_every is None:
        return []
    own = [probe.question() for probe in own_probes(run.request) if probe.is_written]
    controls = data_of(run.request).control_tokens
    return ask.sample_openings(tokenizer, [*own, *prompts_of(run.request)], _sampling(run, 0).count, controls)


def _sampling(run: Run, done: int) -> Sampling:
    manifest = run.request.manifest
    count = min(TRAINING_SAMPLES, manifest.laws.sampled_answers)
    return Sampling(count, manifest.laws.sampled_tokens, manifest.seeds.data + done)


def _halt(broken: Violation, what: str) -> Halted:
    return Halted(f"law {broken.law} {what} at {broken.where}: {broken.found}", where="laws.training", remedy=_REMEDY)
