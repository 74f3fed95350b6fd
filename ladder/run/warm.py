"""Before a training: frozen teachers read what its batches will ask them, and their signals stay in a cache on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ladder.actors.remote import TeacherHandle
from ladder.actors.session import fetch
from ladder.data.batches import SOURCES, WRITTEN, Batch
from ladder.manifest import Request
from ladder.models import dated
from ladder.planning.prepare import prepare
from ladder.planning.start import Start
from ladder.registry.lineage import decided_before, resolve
from ladder.report.text import size_text
from ladder.run.train import TrainingActors, start_folder
from ladder.setup import Context, Roles, Run, check_kept, roles_of
from ladder.system.stopping import held
from ladder.teachers import CacheStatistics


@dataclass(frozen=True)
class Warmed:
    """What became of one manifest.

    Args:
        verdict: WARM; FULL where the cache took less than all; NOTHING where no teacher would be asked anything, or not
            any more; WAITS where its parent is not there yet.
        teachers: of each by number, what its cache did: examples found and examples read, bytes stored.
    """

    child: str
    verdict: str
    detail: str
    teachers: dict[int, dict[str, Any]] = field(default_factory=dict)
    exit_code: int = 0


def warm(request: Request, context: Context) -> Warmed:
    """Let the teachers of a manifest read what its run will ask them, but for dreams that nobody wrote yet.

    Micro-batches are those of the run, in its order, so signals are those that the run would have stored by itself, to
    the last bit where it has no dreams or has written them.

    Raises:
        ManifestError: its cache of signals is not on disk.
        LadderError: as the run would, before it trains.
        Interrupted: stopped; what was read is kept.
    """
    child = str(request.child)
    check_kept(request)
    if decided_before(request, context.registry):
        return Warmed(child, "NOTHING", "decided before; its teachers are not asked any more")
    run = Run.open(request, resolve(request, context.registry, context.home), context.registry, context.home)
    with dated(run.today):
        tokens, machine = context.home / "cache" / "tokens", lambda: context.session.machine
        work = prepare(run, context.registry, context.home, machine, bare=context.bare, tokens=tokens)
        if run.ancestry.obstacle is not None:
            return Warmed(child, "WAITS", str(run.ancestry.obstacle))
        asked = list(_asked(work.start)) if work.start else []
        if not asked:
            return Warmed(child, "NOTHING", "no teacher is asked about anything that is there already")
        assert work.start is not None, "its teachers are there"
        # Only who is no model reads what the student starts as, for its tokenizer.
        folder = start_folder(run, work.start) if work.start.made else run.start
        return _read(run, asked, roles_of(run, context, work.replicas, work.start.ranks, folder), context)


def _asked(start: Start) -> Iterator[tuple[Batch, frozenset[int]]]:
    """The micro-batches of a run, in its order, that hold an example which some teacher is not asked before; and which
    teachers these are. Dreams that nobody wrote yet are left out, and so is what the student will write."""
    batches, guessed = start.batches, {WRITTEN, *(["dreams"] if start.beginnings is not None else [])}
    rows, seen = batches.rows_by_source(), {number: set[str]() for number in start.numbers}
    # Every row of a pool comes once before any comes again.
    passes = [-(-len(pool) // rows[source]) for source, pool in batches.pools.items() if source not in guessed]
    absent = [SOURCES.index(source) for source in guessed & batches.pools.keys()]
    for step in range(min(start.request.manifest.training_params.steps, max(passes))):
        for micro in batches(step):
            batch = micro.select(~np.isin(micro.source_N, absent))[0] if absent else micro
            asked = set()
            for number, known in seen.items():
                heard, _ = batch.heard_by(number, dreams_only=number not in start.speakers)
                fresh = {heard.digests[example] for example in np.unique(heard.example_N).tolist()} - known
                if fresh:
                    asked.add(number)
                    known |= fresh
            if asked:
                yield batch, frozenset(asked)


def _read(run: Run, asked: Sequence[tuple[Batch, frozenset[int]]], roles: Roles, context: Context) -> Warmed:
    """Ask the teachers; one whose cache is full is asked no more."""
    child, runtime = str(run.request.child), run.request.manifest.runtime
    context.console.phase(f"{child}: {len(asked)} micro-batches to read ahead")
    with context.console.working("starting actors, loading teachers"):
        teachers = TrainingActors.start(roles, context).teachers
        for number, teacher in teachers.items():
            fetch([*teacher.load(roles.specs_of(number))])
    kept, pending = dict.fromkeys(teachers, CacheStatistics()), deque[dict[int, Any]]()
    with held() as stopped, context.console.working("micro-batches asked", len(asked)) as task:
        for batch, numbers in asked:
            if stopped():
                break
            pending.append({number: _keep(teachers[number], batch) for number in numbers if not kept[number].full})
            if len(pending) > runtime.in_flight:
                kept |= _counted(pending.popleft())
            task.advance()
        while pending:
            kept |= _counted(pending.popleft())
    return _warmed(child, kept, runtime.signal_cache_gib)


def _keep(teacher: TeacherHandle, batch: Batch) -> list[Any]:
    """Let a teacher speak, and ask its processes what their caches did; what it said goes nowhere."""
    return [
        actor.__ray_call__.remote(_statistics, teacher.number, said)
        for actor, said in zip(teacher.actors, teacher.signal([batch]), strict=True)
    ]


def _statistics(actor: Any, number: int, said: object) -> CacheStatistics:
    """Runs in the teacher, once it has spoken."""
    return actor.teachers[number].cache_statistics


def _counted(asked: dict[int, list[Any]]) -> dict[int, CacheStatistics]:
    """What each teacher's cache did so far, over its processes."""
    return {number: _sum(fetch(answers)) for number, answers in asked.items()}


def _sum(parts: Sequence[CacheStatistics]) -> CacheStatistics:
    return CacheStatistics(
        hits=sum(part.hits for part in parts),
        misses=sum(part.misses for part in parts),
        stored_bytes=sum(part.stored_bytes for part in parts),
        refused=sum(part.refused for part in parts),
        full=any(part.full for part in parts),
    )


def _warmed(child: str, kept: Mapping[int, CacheStatistics], gib: float) -> Warmed:
    full = [number for number, one in kept.items() if one.full]
    found, read = sum(one.hits for one in kept.values()), sum(one.misses for one in kept.values())
    detail = f"{read} examples read, {found} found, {size_text(sum(one.stored_bytes for one in kept.values()))} stored"
    if full:
        detail += (
            f"; the cache of teacher {' and '.join(map(str, full))} is full, and the training reads what is not in it "
            f"each time (runtime.signal_cache_gib: {gib:g})"
        )
    return Warmed(child, "FULL" if full else "WARM", detail, {number: asdict(one) for number, one in kept.items()})
