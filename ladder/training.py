"""The training phase: teachers and student as actors, dreams, then the stream of steps, until a candidate stands."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ladder.actors.dreaming import write_dreams
from ladder.actors.placement import Slot, threads
from ladder.actors.session import fetch
from ladder.actors.stream import stream
from ladder.actors.student import StudentGroup
from ladder.data.batches import Batches
from ladder.errors import Interrupted, RunError
from ladder.lesson import Lesson, build_batches, data_of, describe_pools, loss_elements, write_start
from ladder.methods import method_of
from ladder.run import Run, Workshop, hosted
from ladder.signals.teacher import TeacherSpec
from ladder.teaching import cache_settings, truncation_of
from ladder.train.spec import StepReport, TrainingSpec
from ladder.usage import Usage

LOG_EVERY = 20
"""Steps between two writes of metrics to the registry."""


def train(run: Run, lesson: Lesson, work: Workshop) -> None:
    """Train the child of a run up to its candidate folder; goes on from the newest checkpoint.

    Raises:
        Interrupted: stopped at a step boundary, checkpoint kept.
        RunError: the budget of minutes is spent, or numbers are not finite.
    """
    manifest = run.request.manifest
    method = method_of(manifest)
    speakers = sorted(method.teachers() & run.teachers.keys())
    numbers = hosted(run)
    start = _start(run, lesson)
    slots = work.session.slots(manifest.runtime.devices)
    count = threads(manifest.runtime, work.session.machine, len(numbers))
    actors = work.session.start({role: slots[role] for role in ("student", *(f"teacher{n}" for n in numbers))})
    teachers = {number: actors[f"teacher{number}"] for number in numbers}
    fetch([actor.reset_peak.remote() for actor in actors.values()])
    specs = {number: _teacher(run, work, number, number not in speakers, slots, count) for number in numbers}
    before = _each(numbers, lambda number: teachers[number].load.remote(specs[number]))
    _begin(run, work)
    dreams = write_dreams(run.request, run.dreams, teachers, start, lesson.replay, work.console)
    batches = build_batches(run.request, start, lesson, dreams, work.home / "cache" / "tokens")
    work.console.say(describe_pools(batches.pools))
    group = work.session.group(actors["student"])
    spec = TrainingSpec(
        manifest,
        start,
        {number: run.teachers[number] for number in numbers},
        run.folder,
        run.ancestry.parent.ref if run.ancestry.parent else str(run.request.child),
        slots["student"].device,
        count,
        loss_elements(batches, manifest.training_params.steps, start),
    )
    usage = _steps(run, work, group, actors, batches, fetch(group.prepare(spec)))
    after = _each(numbers, lambda number: teachers[number].digest.remote())
    run.note(frozen={number: [before[number], after[number]] for number in numbers})
    fetch(group.finish(run.candidate))
    _show(run, work, _surveyed(usage, actors))


def _steps(
    run: Run, work: Workshop, group: StudentGroup, actors: Mapping[str, Any], batches: Batches, done: int
) -> Usage:
    """Stream the steps that are left, with checkpoints, metrics and the budget of minutes; returns what all steps
    took."""
    manifest, total = run.request.manifest, run.request.manifest.training_params.steps
    notes, began, budget = run.notes(), time.monotonic(), manifest.budget.max_minutes
    spent, tokens = notes.get("seconds", 0.0), notes.get("tokens", 0)
    usage, teachers = Usage.of_notes(notes), {number: actors[f"teacher{number}"] for number in hosted(run)}
    rows: list[StepReport] = []
    with _stop_on_interrupt() as stopped, work.console.progress(str(run.request.child), total) as progress:
        for first in range(done, total, manifest.runtime.checkpoint_every):
            leg = range(first, min(first + manifest.runtime.checkpoint_every, total))
            for report in stream(group, teachers, batches, leg, manifest.runtime.in_flight, stopped):
                rows.append(report)
                tokens += report.tokens
                usage = usage.after(report)
                progress.step(report)
                if len(rows) >= LOG_EVERY:
                    rows = _log(run, work, rows)
            done = fetch(group.checkpoint())
            seconds = spent + time.monotonic() - began
            run.note(seconds=seconds, tokens=tokens, usage=_surveyed(usage, actors).to_dict())
            rows = _log(run, work, rows)
            if stopped():
                raise Interrupted("stopped at a step boundary", remedy="run the same command again to go on")
            if budget is not None and seconds > 60 * budget and done < total:
                raise RunError(
                    f"trained {seconds / 60:.1f} minutes, {done} of {total} steps",
                    where="budget.max_minutes",
                    remedy="allow more minutes or plan fewer steps",
                )
    return usage


def _surveyed(usage: Usage, actors: Mapping[str, Any]) -> Usage:
    """With what the actors say now about their caches, since they were loaded, and their processes."""
    teachers = [actor for role, actor in actors.items() if role != "student"]
    cache = fetch([teacher.cache_statistics.remote() for teacher in teachers])
    memory = fetch([actor.memory.remote() for actor in actors.values()])
    return usage.surveyed(cache, dict(zip(actors, memory, strict=True)))


def _show(run: Run, work: Workshop, usage: Usage) -> None:
    """Note, log and print what the training took."""
    run.note(usage=usage.to_dict())
    steps = run.request.manifest.training_params.steps
    work.registry.log_steps(run.notes()["mlflow_run"], [(steps, usage.metrics())])
    work.console.say(usage.line())


def _log(run: Run, work: Workshop, rows: list[StepReport]) -> list[StepReport]:
    """Hand the metrics of some steps to the registry; returns an empty list to go on with."""
    work.registry.log_steps(run.notes()["mlflow_run"], [(report.step, _metrics(report)) for report in rows])
    return []


def _metrics(report: StepReport) -> dict[str, float]:
    tokens = max(1, sum(report.routes.values()))
    routes = {f"route/{name}": count / tokens for name, count in report.routes.items()}
    terms = {f"loss/{name}": value for name, value in report.terms.items()}
    spent = {name: getattr(report, name) for name in ("wire_bytes", "seconds", "waited")}
    perf = {f"perf/{name}": float(value) for name, value in spent.items()}
    return {"loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm, **terms, **routes, **perf}


def _begin(run: Run, work: Workshop) -> None:
    """Open the MLflow run, or the one that was cut off."""
    manifest = run.request.manifest
    run_id = work.registry.start_run(
        run.request.child,
        params={
            "training_params": manifest.training_params.model_dump(mode="json", exclude_none=True),
            "stabilizers": manifest.stabilizers.model_dump(mode="json", exclude_none=True),
            "seeds": manifest.seeds.model_dump(),
        },
        parents=list(run.ancestry.teachers.values()),
        tags={"manifest_digest": run.request.digest, "method": manifest.evolution_request.training_method},
    )
    run.note(mlflow_run=run_id)


def _start(run: Run, lesson: Lesson) -> Path:
    """The parent's own folder, unless the child starts as something else."""
    if run.ancestry.parent is not None and data_of(run.request).chat_template is None:
        return run.teachers[1]
    if not run.start.is_dir():
        write_start(run.start, run.request, lesson, run.teachers.get(1))
    return run.start


def _teacher(
    run: Run, work: Workshop, number: int, dreams_only: bool, slots: Mapping[str, Slot], count: int
) -> TeacherSpec:
    manifest = run.request.manifest
    return TeacherSpec(
        run.teachers[number],
        number,
        manifest.runtime.wire,
        manifest.student.dtype,
        dreams_only,
        slots[f"teacher{number}"].device,
        count,
        truncation_of(manifest, run.teachers[number]),
        cache_settings(manifest.runtime, work.home),
    )


def _each(numbers: list[int], call: Callable[[int], Any]) -> dict[int, Any]:
    return dict(zip(numbers, fetch([call(number) for number in numbers]), strict=True))


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that the loop asks between steps; the second one stops at once."""
    caught: list[int] = []

    def remember(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, previous)
