"""The training phase: teachers and student as actors, dreams, then the stream of steps, until a candidate stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ladder.actors.placement import crowded
from ladder.actors.session import fetch, stream
from ladder.actors.student import StudentGroup
from ladder.actors.teacher import TeacherHandle
from ladder.data.batches import Batches
from ladder.errors import Interrupted, RunError
from ladder.manifest.words import old_spelling
from ladder.models.adapters import rehearse
from ladder.models.load import config_of, load_tokenizer
from ladder.models.rounding import Rounding
from ladder.run.context import Run, Workshop, hosted
from ladder.run.dataset import (
    Lesson,
    beginning_warnings,
    build_batches,
    data_of,
    describe_pools,
    own_probes,
    reading_warnings,
    recall_probes,
    write_start,
)
from ladder.run.dreams import Night, write_dreams
from ladder.run.exam import check_asked
from ladder.run.fit import check_fits
from ladder.run.laws import Vigil
from ladder.run.roles import cast_of, student_of
from ladder.run.usage import Usage
from ladder.sampling.dreams import Dream
from ladder.system.stopping import GO_ON, held
from ladder.train.spec import StepReport

LOG_EVERY = 20
"""Steps between two writes of metrics to the registry."""
FIRST_CHECKPOINT = 1.0
"""Minutes after which the first checkpoint of a call is written: what is killed young has not lost everything."""


def train(run: Run, lesson: Lesson, work: Workshop) -> None:
    """Train the child of a run up to its candidate folder; goes on from the newest checkpoint.

    Raises:
        Interrupted: stopped at a step boundary, checkpoint kept.
        Halted: a law was broken and the manifest says halt.
        RunError: the budget of minutes is spent, or numbers are not finite.
    """
    start = _start(run, lesson)
    check_asked(run.request, start, own_probes(run.request))
    _check_fits(run, lesson, start, work.home)
    cast = cast_of(run, work)
    actors = work.session.start(cast.roles)
    fetch([actor.reset_peak.remote() for actor in actors.values()])
    teachers = {number: TeacherHandle(actors[role], number) for number, role in cast.hosts.items()}
    loaded = _each(teachers, lambda number: teachers[number].load(cast.teachers[number]))
    _begin(run, work)
    ask, say = _dreamt_by(teachers), work.console.say
    dreams = write_dreams(run.request, run.dreams, teachers, ask, start, lesson, say)
    batches = build_batches(run.request, start, lesson, dreams, work.home / "cache" / "tokens")
    work.console.say(describe_pools(batches.pools))
    group = work.session.group(actors["student"])
    headless = frozenset(number for number, one in loaded.items() if one.kind != cast.teachers[number].kind)
    prepared = fetch(group.prepare(student_of(run, cast, start, batches, headless)))
    tokenizer = load_tokenizer(start)
    warnings = beginning_warnings(tokenizer, run.teachers.get(1)) + reading_warnings(run.request, lesson, tokenizer)
    warnings += [text for one in (*loaded.values(), prepared) for text in one.warnings]
    _warn(run, work, [*crowded(work.session.hosts(cast.roles), cast.threads), *warnings])
    survey = partial(_surveyed, teachers=teachers, actors=actors)
    usage = _steps(run, work, group, teachers, batches, prepared.done, survey, Vigil.of(run, start, prepared.done))
    after = _each(teachers, lambda number: teachers[number].digest())
    run.note(frozen={number: [loaded[number].digest, after[number]] for number in teachers})
    usage = survey(usage)
    rounding = fetch(group.finish(run.candidate))
    run.note(disk_bytes=_disk(run, usage))
    _show(run, work, usage)
    if rounding is not None:
        _show_rounding(run, work, rounding)


def _steps(
    run: Run,
    work: Workshop,
    group: StudentGroup,
    teachers: Mapping[int, TeacherHandle],
    batches: Batches,
    done: int,
    survey: Callable[[Usage], Usage],
    vigil: Vigil,
) -> Usage:
    """Stream the steps that are left, with checkpoints, metrics, laws and the budget of minutes; returns what all steps
    took."""
    manifest, total = run.request.manifest, run.request.manifest.training_params.steps
    runtime = manifest.runtime
    notes, began, budget = run.marked(done), time.monotonic(), manifest.budget.max_minutes
    spent, tokens = notes.get("seconds", 0.0), notes.get("tokens", 0)
    usage = Usage.of_notes(notes)
    rows: list[StepReport] = []
    minutes = min(FIRST_CHECKPOINT, runtime.checkpoint_minutes)
    with held() as stopped, work.console.progress(str(run.request.child), total) as progress:
        while done < total:
            leg, ends = vigil.leg(done, total, runtime.checkpoint_every), _either(stopped, _late(minutes))
            for report in stream(group, teachers, batches, leg, runtime, ends):
                rows.append(report)
                tokens += report.tokens
                usage = usage.after(report)
                progress.step(report)
                broken = vigil.see(report)
                if len(rows) >= LOG_EVERY or broken:
                    rows = _log(run, work, rows)
                vigil.halt(broken)
            done, seconds, minutes = report.step + 1, spent + time.monotonic() - began, runtime.checkpoint_minutes
            broken, surveyed = vigil.read(done, group), survey(usage)
            # The checkpoint comes last: what is known of its steps is not learned again by a run that goes on from it.
            rows = _log(run, work, rows)
            run.mark(done, seconds=seconds, tokens=tokens, usage=surveyed.to_dict(), watch=vigil.to_dict())
            fetch(group.checkpoint())
            run.note(disk_bytes=_disk(run, surveyed))
            vigil.halt(broken)
            if stopped():
                raise Interrupted(f"stopped after step {done} of {total}, with a checkpoint of it", remedy=GO_ON)
            if budget is not None and seconds > 60 * budget and done < total:
                raise RunError(
                    f"trained {seconds / 60:.1f} minutes, {done} of {total} steps",
                    where="budget.max_minutes",
                    remedy="allow more minutes or plan fewer steps",
                )
    return usage


def _check_fits(run: Run, lesson: Lesson, start: Path, home: Path) -> None:
    """What ``plan`` checks of adapter and lengths, before an actor starts."""
    if (lora := run.request.manifest.student.adapter) is not None:
        rehearse(config_of(start), lora)
    models = (config_of(start), *(config_of(run.teachers[number]) for number in hosted(run)))
    probes = own_probes(run.request), recall_probes(run.ancestors)
    check_fits(run.request, lesson, start, models, probes, home / "cache" / "tokens")


def _either(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() or other()


def _late(minutes: float) -> Callable[[], bool]:
    """Whether it is time for a checkpoint, so many minutes from now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began >= 60 * minutes


def _dreamt_by(teachers: Mapping[int, TeacherHandle]) -> Callable[[Sequence[Night]], list[list[Dream]]]:
    """Teachers that dream, all that are asked at the same time."""
    return lambda nights: fetch([teachers[night.teacher].dream(night) for night in nights])


def _surveyed(usage: Usage, teachers: Mapping[int, TeacherHandle], actors: Mapping[str, Any]) -> Usage:
    """With what the actors say now about their caches, since they were loaded, and their processes."""
    cache = fetch([teacher.cache_statistics() for teacher in teachers.values()])
    memory = fetch([actor.memory.remote() for actor in actors.values()])
    return usage.surveyed(cache, dict(zip(actors, memory, strict=True)))


def _disk(run: Run, usage: Usage) -> int:
    """Bytes of the run's folder, and of the signals that were stored on disk."""
    return run.size() + (usage.cache_bytes if run.request.manifest.runtime.signal_cache == "disk" else 0)


def _show(run: Run, work: Workshop, usage: Usage) -> None:
    """Note, log and print what the training took."""
    run.note(usage=usage.to_dict())
    steps = run.request.manifest.training_params.steps
    work.registry.log_steps(run.notes()["mlflow_run"], [(steps, usage.metrics())])
    work.console.say(usage.line())


def _show_rounding(run: Run, work: Workshop, rounding: Rounding) -> None:
    """Note, log and print which share of the change is left in the dtype that the child is stored in."""
    run.note(rounding=rounding.to_dict())
    steps = run.request.manifest.training_params.steps
    work.registry.log_steps(run.notes()["mlflow_run"], [(steps, rounding.metrics())])
    work.console.say(rounding.line())


def _log(run: Run, work: Workshop, rows: list[StepReport]) -> list[StepReport]:
    """Hand the metrics of some steps to the registry; returns an empty list to go on with."""
    work.registry.log_steps(run.notes()["mlflow_run"], [(report.step, _metrics(report)) for report in rows])
    return []


def _metrics(report: StepReport) -> dict[str, float]:
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


def _begin(run: Run, work: Workshop) -> None:
    """Open the MLflow run, or the one that was cut off."""
    manifest = run.request.manifest
    run_id = work.registry.start_run(
        run.request.child,
        params={
            "training_params": old_spelling(
                "training_params", manifest.training_params.model_dump(mode="json", exclude_none=True)
            ),
            "stabilizers": manifest.stabilizers.model_dump(mode="json", exclude_none=True),
            "seeds": manifest.seeds.model_dump(),
        },
        parents=list(run.ancestry.teachers.values()),
        tags={"manifest_digest": run.request.digest, "method": manifest.evolution_request.training_method},
    )
    run.note(mlflow_run=run_id)


def _warn(run: Run, work: Workshop, warnings: list[str]) -> None:
    """Say what the run does other than it was asked to, and note it."""
    for text in warnings:
        work.console.say(f"warning: {text}")
    run.note(warnings=warnings)


def _start(run: Run, lesson: Lesson) -> Path:
    """The parent's own folder, unless the child starts as something else."""
    if run.ancestry.parent is not None and data_of(run.request).chat_template is None:
        return run.teachers[1]
    if not run.start.is_dir():
        write_start(run.start, run.request, lesson, run.teachers.get(1))
    return run.start


def _each(numbers: Iterable[int], call: Callable[[int], Any]) -> dict[int, Any]:
    return dict(zip(numbers, fetch([call(number) for number in numbers]), strict=True))
