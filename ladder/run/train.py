"""The training phase: teachers and student as actors, dreams, then the stream of steps, until a candidate stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ladder.actors.placement import crowded
from ladder.actors.remote import StudentGroup, TeacherHandle
from ladder.actors.session import fetch, stream
from ladder.data.batches import Batches
from ladder.manifest import old_spelling
from ladder.models import Rounding
from ladder.planning.prepare import Work
from ladder.planning.start import Start
from ladder.run.hooks import Halt, Journal, Minutes, Monitor, Shown, Stop, disk_bytes, run_legs
from ladder.sampling.dreams import Dream
from ladder.setup import (
    Context,
    DreamBatch,
    Roles,
    Run,
    Usage,
    data_of,
    describe_pools,
    roles_of,
    student_of,
    write_dreams,
    write_start,
)
from ladder.system.stopping import held
from ladder.train.spec import StepReport

FIRST_CHECKPOINT = 1.0
"""Minutes after which the first checkpoint of a call is written: what is killed young has not lost everything."""


class TrainingActors(NamedTuple):
    """Who is at work in a training: actors by role, what they host, and the names of their nodes."""

    actors: Mapping[str, Any]
    teachers: Mapping[int, TeacherHandle]
    group: StudentGroup
    nodes: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def start(cls, roles: Roles, context: Context) -> TrainingActors:
        """Start the actors, or take those that run, and begin to measure them."""
        actors = context.session.start(roles.placement, roles.actors)
        context.session.check_home(context.home)
        fetch([actor.reset_peak.remote() for actor in actors.values()])
        teachers = {number: TeacherHandle(actors[role], number) for number, role in roles.hosts.items()}
        nodes = {
            role: context.session.name_of(host.node)
            for role, host in zip(actors, context.session.hosts(actors), strict=True)
        }
        return cls(actors, teachers, context.session.group(actors), nodes)

    def survey(self, usage: Usage) -> Usage:
        """With what the actors say now about their caches, since they were loaded, their processes and traffic."""
        cache = fetch([teacher.cache_statistics() for teacher in self.teachers.values()])
        memory = fetch([actor.memory.remote() for actor in self.actors.values()])
        traffic = fetch([actor.traffic.remote(self.nodes[role]) for role, actor in self.actors.items()])
        return usage.surveyed(cache, dict(zip(self.actors, memory, strict=True)), traffic)

    def dream(self, dream_batches: Sequence[DreamBatch]) -> list[list[Dream]]:
        """Dreams of some teachers, all that are asked at the same time."""
        return fetch([self.teachers[dream_batch.teacher].dream(dream_batch) for dream_batch in dream_batches])


def train(run: Run, work: Work, context: Context) -> None:
    """Train the child of a run up to its candidate folder; goes on from the newest checkpoint.

    Raises:
        Interrupted: stopped at a step boundary, checkpoint kept.
        Halted: a law was broken and the manifest says halt.
        RunError: the budget of minutes is spent, or numbers are not finite.
    """
    start, say = work.start, context.console.say
    assert start is not None, "a run that trains has a start"
    folder, roles = _start_folder(run, start), roles_of(run, context)
    crew = TrainingActors.start(roles, context)
    loaded = _each(crew.teachers, lambda number: crew.teachers[number].load(roles.teachers[number]))
    _begin(run, context)
    dreams = write_dreams(
        run.request, run.dreams, crew.teachers, crew.dream, folder, start.tokenizer, start.beginnings, say
    )
    batches = start.batches_with(dreams)
    say(describe_pools(batches.pools))
    headless = frozenset(number for number, one in loaded.items() if one.kind != roles.teachers[number].kind)
    prepared = fetch(crew.group.prepare(student_of(run, roles, folder, batches, headless)))
    told = [*crowded(context.session.hosts(roles.actors), roles.threads)]
    told += [text for one in (*loaded.values(), prepared) for text in one.warnings]
    for text in told:
        say(f"warning: {text}")
    run.note(warnings=[*work.reading_warnings, *told])
    laws = Monitor.of(run, start.tokenizer, crew.group, prepared.done)
    usage = _steps(run, context, crew, batches, laws, prepared.done)
    after = _each(crew.teachers, lambda number: crew.teachers[number].digest())
    run.note(frozen={number: [loaded[number].digest, after[number]] for number in crew.teachers})
    usage = crew.survey(usage)
    rounding = fetch(crew.group.finish(run.candidate))
    run.note(disk_bytes=disk_bytes(run, usage))
    _show(run, context, "usage", usage)
    if rounding is not None:
        _show(run, context, "rounding", rounding)


def _steps(run: Run, context: Context, crew: TrainingActors, batches: Batches, laws: Monitor, done: int) -> Usage:
    """Train the steps that are left; returns what all steps took."""
    manifest, total, began = run.request.manifest, run.request.manifest.training_params.steps, done
    runtime, journal = manifest.runtime, Journal.of(run, context.registry, laws, crew.survey, done)
    with held() as stopped, context.console.progress(str(run.request.child), total) as progress:

        def leg(done: int) -> Iterator[StepReport]:
            minutes = runtime.checkpoint_minutes if done > began else min(FIRST_CHECKPOINT, runtime.checkpoint_minutes)
            steps, ends = laws.leg(done, total, runtime.checkpoint_every), _either(stopped, _late(minutes))
            return stream(crew.group, crew.teachers, batches, steps, runtime, ends)

        # Laws judge first, and the journal notes what they found. What ends a run comes when that is durable.
        budget = Minutes(manifest.budget.max_minutes, journal, total)
        hooks = [laws, journal, Shown(progress), Halt(laws), Stop(stopped, total), budget]
        run_legs(leg, lambda: fetch(crew.group.checkpoint()), hooks, done, total)
    return journal.usage


def _either(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() or other()


def _late(minutes: float) -> Callable[[], bool]:
    """Whether it is time for a checkpoint, so many minutes from now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began >= 60 * minutes


def _show(run: Run, context: Context, name: str, taken: Usage | Rounding) -> None:
    """Note, log and print what the training took, or which share of the change is left in the dtype that the child is
    stored in."""
    run.note(**{name: taken.to_dict()})
    steps = run.request.manifest.training_params.steps
    context.registry.log_steps(run.notes()["mlflow_run"], [(steps, taken.metrics())])
    context.console.say(taken.line())


def _begin(run: Run, context: Context) -> None:
    """Open the MLflow run, or the one that was cut off."""
    manifest = run.request.manifest
    run_id = context.registry.start_run(
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


def _start_folder(run: Run, start: Start) -> Path:
    """The parent's own folder, unless the child starts as something else, which is written once."""
    if run.ancestry.parent is not None and data_of(run.request).chat_template is None:
        return run.teachers[1]
    if not run.start.is_dir():
        write_start(run.start, run.request, start.tokenizer, run.teachers.get(1))
    return run.start


def _each(numbers: Iterable[int], call: Callable[[int], Any]) -> dict[int, Any]:
    return dict(zip(numbers, fetch([call(number) for number in numbers]), strict=True))
