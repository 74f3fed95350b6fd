"""The training phase: teachers and student as actors, dreams, then the stream of steps, until a candidate stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ladder.actors.placement import crowded
from ladder.actors.remote import Loaded, Prepared, StudentGroup, TeacherHandle
from ladder.actors.session import fetch, hear, stream
from ladder.data.batches import WRITTEN, Batches
from ladder.errors import ActorDied, ModelError
from ladder.manifest import Dreams, Request, old_spelling, others
from ladder.manifest.sources import is_hub
from ladder.methods import method_of
from ladder.models import Rounding
from ladder.planning.prepare import Work
from ladder.planning.start import Start
from ladder.registry import Source
from ladder.report.console import Console
from ladder.report.live import Task
from ladder.run.hooks import Halt, Journal, Minutes, Monitor, Shown, Stop, disk_bytes, run_legs
from ladder.run.recovery import divided, dividing
from ladder.sampling.dreams import Dream, Sampling, dreams_wanted
from ladder.sampling.written import WrittenText
from ladder.setup import (
    Context,
    DreamBatch,
    Roles,
    Round,
    Run,
    Usage,
    Writing,
    data_of,
    demonstrated,
    describe_pools,
    digests_on_disk,
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
        teachers = {
            number: TeacherHandle(tuple(actors[role] for role in hosts), number)
            for number, hosts in roles.hosts.items()
        }
        hosts = zip(actors, context.session.hosts(actors), strict=True)
        nodes = {role: context.session.name_of(host.node) for role, host in hosts}
        return cls(actors, teachers, context.session.group(actors), nodes)

    def survey(self, usage: Usage) -> Usage:
        """With what the actors say now about their caches, since they were loaded, their processes and traffic."""
        cache = fetch([one for teacher in self.teachers.values() for one in teacher.cache_statistics()])
        memory = fetch([actor.memory.remote() for actor in self.actors.values()])
        traffic = fetch([actor.traffic.remote(self.nodes[role]) for role, actor in self.actors.items()])
        return usage.surveyed(cache, dict(zip(self.actors, memory, strict=True)), traffic)

    def dream(self, dream_batches: Sequence[DreamBatch]) -> list[list[Dream]]:
        """Blocks of dreams, in this order; all that are asked at the same time."""
        asked: dict[int, Iterator[Any]] = {
            number: iter(teacher.dream([block for block in dream_batches if block.teacher == number]))
            for number, teacher in self.teachers.items()
        }
        return fetch([next(asked[block.teacher]) for block in dream_batches])


def train(run: Run, work: Work, context: Context) -> None:
    """Train the child of a run up to its candidate folder; goes on from the newest checkpoint.

    Raises:
        Interrupted: stopped at a step boundary, checkpoint kept.
        Halted: a law was broken and the manifest says halt.
        RunError: the budget of minutes is spent, or numbers are not finite.
    """
    start, say, working = work.start, context.console.say, context.console.working
    assert start is not None, "a run that trains has a start"
    with working("starting actors"):
        folder = start_folder(run, start)
        roles = roles_of(run, context, work.replicas, start.ranks, folder)
        crew = TrainingActors.start(roles, context)
        context.session.foresee(roles.placement, ["evaluator", *sorted(context.coming)])
    with working("loading teachers") if crew.teachers else nullcontext():
        loaded = _each(crew.teachers, lambda number: crew.teachers[number].load(roles.specs_of(number)))
        _check_alike(loaded)
    if run.rehearsal.lessons:
        run.note(rehearsal=run.rehearsal.to_dict())  # A run that goes on hears the same.
    for lesson in run.rehearsal.told():
        say(f"rehearsal: {lesson}")
    # What the others were when the run began, in whichever call: they must be that when it ends.
    found = run.notes().get("teachers") or {str(n): digest for n, digest in digests_on_disk(run).items()}
    if found:
        run.note(teachers=found)
    _begin(run, context, found)
    dreams = _dreams(run, start, crew, folder, context.console)
    batches = divided(start.batches_with(dreams), run)
    say(describe_pools({source: rows for source, rows in batches.pools.items() if source != WRITTEN}))
    headless = frozenset(number for number, (one, *_) in loaded.items() if one.kind != roles.teachers[number].kind)
    with working("loading the student"):
        prepared = _alike(hear(crew.group, crew.group.prepare(student_of(run, roles, folder, batches, headless))))
    told = [*crowded(context.session.hosts(roles.actors), roles.threads)]
    told += [text for one in (*(first for first, *_ in loaded.values()), prepared) for text in one.warnings]
    for text in told:
        say(f"warning: {text}")
    run.note(warnings=[*work.reading_warnings, *told], replicas=work.replicas)
    laws = Monitor.of(run, start.tokenizer, crew.group, prepared.done)
    rounds = Rounds(run, context, crew.group, start.writing, batches)
    rounds.try_demonstrations()
    usage = _steps(run, context, crew, rounds, laws, prepared.done)
    losses = context.registry.step_metrics(run.notes()["mlflow_run"], "loss/")
    if remarks := method_of(run.request.manifest).remarks(losses):
        for text in remarks:
            say(f"warning: {text}")
        run.note(warnings=[*work.reading_warnings, *told, *remarks])
    with working("writing the candidate"):
        after = _each(crew.teachers, lambda number: crew.teachers[number].digest())
        now = digests_on_disk(run)
        before = {number: _whole(loaded[number][0].digest, found.get(str(number))) for number in crew.teachers}
        run.note(frozen={n: [before[n], _whole(_digest(after[n]), now.get(n))] for n in crew.teachers})
        usage = crew.survey(usage)
        rounding = hear(crew.group, crew.group.finish(run.candidate))[0]
    run.note(disk_bytes=disk_bytes(run, usage))
    _show(run, context, "usage", usage)
    if rounding is not None:
        _show(run, context, "rounding", rounding)


def _dreams(run: Run, start: Start, crew: TrainingActors, folder: Path, console: Console) -> list[Dream]:
    """The dreams of the run, written now where they are not yet."""
    wanted, writes = run.request.manifest.stabilizers.dreams, start.beginnings is not None
    at_once = max((len(one.actors) for one in crew.teachers.values()), default=1)
    count = dreams_wanted(wanted) if isinstance(wanted, Dreams) else 0
    with console.working("dreams", count) if writes else nullcontext(Task("dreams")) as task:

        def ask(dream_batches: Sequence[DreamBatch]) -> list[list[Dream]]:
            written = crew.dream(dream_batches)
            task.advance(sum(map(len, written)))
            return written

        begins, say = start.beginnings, console.say
        return write_dreams(run.request, run.dreams, crew.teachers, ask, folder, start.tokenizer, begins, say, at_once)


@dataclass(frozen=True)
class Rounds:
    """The batches of a run, round by round where its student writes.

    Args:
        whole: of the run, with stand-ins for what the student writes.
    """

    run: Run
    context: Context
    group: StudentGroup
    writing: Writing | None
    whole: Batches

    def steps(self, steps: range) -> tuple[range, Batches]:
        """As many of these steps as belong to one round, and their batches; the student writes what it reads in them,
        where that is not written yet."""
        if self.writing is None:
            return steps, self.whole
        end, asked = self.writing.ends(steps.start), self.writing.batches
        within = range(steps.start, steps.stop if end is None else min(end, steps.stop))
        return within, asked(self.whole, self.run.written, steps.start, self._ask, self._told)

    def try_demonstrations(self) -> None:
        """Say, and note, whether the parent can use what it will be shown: once, before the first step, as long as the
        student still is its parent."""
        if self.writing is None or not self.writing.tried:
            return
        notes = self.run.notes()
        nats = notes.get("demonstrated") or [
            hear(self.group, self.group.nats(side))[0] for side in zip(*self.writing.tried, strict=True)
        ]
        told = demonstrated(*nats)
        for text in told:
            self.context.console.say(f"warning: {text}")
        self.run.note(demonstrated=nats, warnings=[*notes.get("warnings", []), *told])

    def _ask(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[WrittenText]:
        texts: list[WrittenText] = hear(self.group, self.group.write(prompts, sampling, seed))[0]
        return texts

    def _told(self, told: Round) -> None:
        assert self.writing is not None, "there are rounds"
        self.context.console.say(told.line(len(self.writing.starts)))
        self.run.note(written={**self.run.notes().get("written", {}), str(told.number): asdict(told)})


def _steps(run: Run, context: Context, crew: TrainingActors, rounds: Rounds, laws: Monitor, done: int) -> Usage:
    """Train the steps that are left; returns what all steps took."""
    manifest, total, began = run.request.manifest, run.request.manifest.training_params.steps, done
    runtime, journal = manifest.runtime, Journal.of(run, context.registry, laws, crew.survey, done)
    with held() as stopped, context.console.progress(str(run.request.child), total) as progress:

        def leg(done: int) -> Iterator[StepReport]:
            minutes = runtime.checkpoint_minutes if done > began else min(FIRST_CHECKPOINT, runtime.checkpoint_minutes)
            steps, batches = rounds.steps(laws.leg(done, total, runtime.checkpoint_every))
            ends = _either(stopped, _late(minutes))
            return stream(crew.group, crew.teachers, batches, steps, runtime, ends)

        # Laws judge first, and the journal notes what they found. What ends a run comes when that is durable.
        budget = Minutes(manifest.budget.max_minutes, journal, total)
        hooks = [laws, journal, Shown(progress), Halt(laws), Stop(stopped, total), budget]
        with dividing(rounds.whole, run):
            run_legs(
                leg,
                lambda: hear(crew.group, crew.group.checkpoint()),
                hooks,
                done,
                total,
                settle=lambda: hear(crew.group, crew.group.settle()),
            )
    return journal.usage


def _alike(ranks: Sequence[Prepared]) -> Prepared:
    """What all ranks say alike.

    Raises:
        ActorDied: they found different checkpoints, as where a network file system shows a folder late.
    """
    if len({one.done for one in ranks}) > 1:
        raise ActorDied(f"ranks go on from different steps: {[one.done for one in ranks]}", remedy="run it again")
    return ranks[0]


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


def _whole(loaded: str, on_disk: str | None) -> str:
    """What is known of a teacher: the digest of what was loaded and, of the others, of what it was loaded from."""
    return loaded if on_disk is None else f"{loaded} from {on_disk}"


def _begin(run: Run, context: Context, found: Mapping[str, str]) -> None:
    """Open the MLflow run, or the one that was cut off.

    Args:
        found: digests of further teachers, by number.
    """
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
        sources=[
            *_files(run.request),
            *(
                Source(one.name, found[str(number)], one.kind, one.path or ", ".join(one.files))
                for number, one in others(manifest).items()
                if str(number) in found and number not in run.ancestry.teachers
            ),
        ],
    )
    run.note(mlflow_run=run_id)


def _files(request: Request) -> Iterator[Source]:
    """The files that a child's rows and probes are read from."""
    data = data_of(request)
    for context, names in (("train", data.train), ("eval", [data.probes] if data.probes else [])):
        for name in names:
            yield Source(name, request.files[name], "hub" if is_hub(name) else "local", name, context)


def start_folder(run: Run, start: Start) -> Path:
    """The parent's own folder, unless the child starts as something else, which is written once."""
    if run.ancestry.parent is not None and data_of(run.request).chat_template is None:
        return run.teachers[1]
    if not run.start.is_dir():
        write_start(run.start, run.request, start.tokenizer, run.teachers.get(1))
    return run.start


def _each(numbers: Iterable[int], call: Callable[[int], Sequence[Any]]) -> dict[int, list[Any]]:
    """What each teacher's replicas answer, all asked at the same time."""
    asked = {number: call(number) for number in numbers}
    answers = iter(fetch([one for replicas in asked.values() for one in replicas]))
    return {number: [next(answers) for _ in replicas] for number, replicas in asked.items()}


def _check_alike(loaded: Mapping[int, Sequence[Loaded]]) -> None:
    """See that the replicas of a teacher are one.

    Raises:
        ModelError: they hold other weights, or send other things.
    """
    for number, replicas in loaded.items():
        if len({(one.digest, one.kind) for one in replicas}) > 1:
            told = ", ".join(f"{one.digest[:12]} sends {one.kind}" for one in replicas)
            raise ModelError(
                f"the replicas of teacher {number} differ: {told}",
                where="runtime.teachers.replicas",
                remedy="see that all nodes read the same home, or write 1",
            )


def _digest(replicas: Sequence[str]) -> str:
    """The digest of a teacher's tensors, or those of its replicas where they are no longer one."""
    return " and ".join(sorted(set(replicas)))
