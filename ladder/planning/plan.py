"""The dry run: everything a run would check, and its price list, as data and as text.

Nothing is written into the home but its cache of models.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

import torch

import ladder.actors.session  # noqa: F401  (so that this process has loaded what an actor has)
from ladder.actors.own_ray import store_of_new_ray
from ladder.actors.placement import Machine, describe, place, threads
from ladder.errors import LadderError, ManifestError, NotFound
from ladder.exam import PromptSet, few_told
from ladder.gates import Detectable, Fewest
from ladder.manifest import Manifest, Request, others, round_starts
from ladder.methods import method_of
from ladder.models import dated
from ladder.planning.lesson import Lesson
from ladder.planning.machine import BUSY
from ladder.planning.prepare import kept_replicas, prepare
from ladder.planning.price import Price, price_of
from ladder.planning.rough import UNSURE
from ladder.planning.space import Space
from ladder.planning.start import Start
from ladder.planning.timing import time_step
from ladder.registry import Registry, open_registry
from ladder.registry.lineage import ancestry_then, decided_before, resolve, unregistered_teachers
from ladder.report.console import Console
from ladder.report.live import SOON
from ladder.report.terminal import log_of, unexpected_told
from ladder.report.text import duration_text, facts, size_text
from ladder.setup import Run, all_roles, data_of, on_cores, write_start
from ladder.system.process import bare_bytes

UNLEARNED_WARNING = 0.2
"""Share of what is new that a recipe may fail to teach before `plan --measure` says so."""

_OLDER = "dreams of lessons that the parent has lost"


@dataclass(frozen=True)
class Plan:
    """One manifest's dry run.

    Args:
        ready: None if it can start now, else what has to happen first.
        price: what it takes; None where its parent is not there yet, so that nothing can be counted.
        tokens: upper bound of the tokens through the student's backbone.
        exam: what its exam can tell apart; without its ancestors' probes where its parent is not there yet.
        others: name and kind of each teacher beside parent and grandparent, by number.
        lesson: how its new rows are read; None where its parent is not there yet, or it is trained already.
        writing: what the student writes: ``rounds``, ``texts`` of each, ``max_new_tokens`` of one; None where nothing.
        rehearsal: which of its ancestors' lessons are rehearsed otherwise than the rest, and why.
        space: what is left in the model by its line's examinations; None where they say nothing, or it is trained.
    """

    child: str
    method: str
    digest: str
    parent: str | None
    grandparent: str | None
    decided: str | None
    ready: str | None
    rows: int
    probes: int
    steps: int
    tokens: int
    teachers: int
    price: Price | None
    threads: int
    placement: dict[str, str]
    exam: Detectable
    warnings: list[str]
    others: dict[int, str] = field(default_factory=dict)
    lesson: Lesson | None = None
    writing: dict[str, Any] | None = None
    rehearsal: list[str] = field(default_factory=list)
    space: Space | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return plan_text(self)


def make_plans(requests: Sequence[Request], home: Path, *, measure: bool = False) -> list[Plan]:
    """As ``plan_each``, for whoever wants plans alone.

    Raises:
        LadderError: as the run would; of the first manifest that is refused, after all were judged.
    """
    plans, refused = plan_each(requests, home, measure=measure)
    if refused:
        raise refused[0]
    return plans


def plan_each(
    requests: Sequence[Request], home: Path, *, measure: bool = False, console: Console | None = None
) -> tuple[list[Plan], list[LadderError]]:
    """Validate everything that manifests name, and price them in order, each by itself.

    Args:
        measure: run one step's batch of each for real, in this process, and take the times from that.
        console: where is told how far it is; nowhere when left out.

    Returns:
        The plans of those that can be carried out, and what ``evolve`` would say of the others.
    """
    # Before anything is loaded that an actor would not load, such as MLflow.
    base = bare_bytes()
    registry = existing(home)
    planned, console = {str(request.child) for request in requests}, console or Console(quiet=True)
    plans, refused = list[Plan](), list[LadderError]()
    for request in requests:
        try:
            told = console.working(f"{request.child}: plan{' and measure' * measure}", after=SOON)
            with unexpected_told(log_of(home), where=str(request.path)), told:
                plans.append(_plan(request, registry, planned, home, base, measure))
        except LadderError as error:
            refused.append(error)
    return plans, refused


def existing(home: Path) -> Registry | None:
    """The registry of a home; None where there is no home yet."""
    try:
        return open_registry(home, create=False)
    except NotFound:
        return None


def check(requests: Sequence[Request], home: Path, registry: Registry | None) -> None:
    """Validate everything that manifests name, on a machine that does not carry them out.

    Args:
        registry: of the home; None where it is not known here, and what depends on a parent is left to the run.

    Raises:
        LadderError: as the run would; of the first manifest that is refused.
    """
    for request in requests:
        if decided_before(request, registry) is None:
            run = Run.open(request, resolve(request, registry, home), registry, home)
            with tempfile.TemporaryDirectory(prefix="ladder-check-") as temporary, dated(run.today):
                prepare(run, registry, home, None, bare=0, tokens=Path(temporary))


def _plan(request: Request, registry: Registry | None, planned: set[str], home: Path, base: int, measure: bool) -> Plan:
    manifest, params = request.manifest, request.manifest.training_params
    machine = Machine.alone(os.cpu_count() or 1, torch.cuda.device_count(), store_of_new_ray())
    known = decided_before(request, registry)
    lineage = ancestry_then(request, registry) if known and registry else resolve(request, registry, home)
    run = Run.open(request, lineage, registry, home)
    with tempfile.TemporaryDirectory(prefix="ladder-plan-") as temporary, dated(run.today):
        work = prepare(
            run,
            registry,
            home,
            lambda: machine,
            bare=base,
            tokens=Path(temporary) / "tokens",
            decided=known is not None,
            priced=True,
        )
        price = work.price
        if measure:
            price = _measured(run, work.start, home, machine, base, Path(temporary), work.asked)
    waits = lineage.obstacle is not None and not unregistered_teachers(request, registry)
    rehearsal, method = run.rehearsal, method_of(manifest)
    teachers = method.teachers() | method.dreamers() | rehearsal.older.keys()
    placed = _placed(price, teachers)
    slots = place(manifest.runtime, machine, placed, on_cores(run.made)).slots
    after = f"after {request.parent} of the same call is promoted" if str(request.parent) in planned else None
    return Plan(
        child=str(request.child),
        method=manifest.evolution_request.training_method,
        digest=request.digest,
        parent=str(request.parent) if request.parent else None,
        grandparent=str(request.grandparent) if request.grandparent else None,
        decided=f"{known.ref} was {known.verdict}" if known else None,
        ready=after or str(lineage.obstacle) if waits and not known else None,
        rows=len(work.dataset.new),
        probes=len(work.own),
        steps=params.steps,
        tokens=params.steps * params.batch_size * data_of(request).max_length,
        teachers=len(teachers),
        price=price,
        threads=threads(manifest.runtime, machine),
        # On one machine without GPUs every role has a place, so that the next manifest finds its actors: the run's own.
        placement={role: where for role, where in describe(slots).items() if role in placed},
        exam=work.exam,
        warnings=[*work.warnings, *_forecast(request, price)],
        others={number: f"{one.name} ({one.kind})" for number, one in others(manifest).items()}
        | {number: f"{ref} ({_OLDER})" for number, ref in rehearsal.older.items()},
        lesson=work.lesson,
        writing=_written(manifest),
        rehearsal=rehearsal.told(),
        space=work.space,
    )


def _written(manifest: Manifest) -> dict[str, Any] | None:
    wanted, rounds = manifest.training_params.written, len(round_starts(manifest))
    return {"rounds": rounds, "texts": wanted.count, "max_new_tokens": wanted.max_new_tokens} if wanted else None


def _measured(
    run: Run,
    start: Start | None,
    home: Path,
    machine: Machine,
    base: int,
    temporary: Path,
    asked: PromptSet | None,
) -> Price:
    """The price by a step that is taken here.

    Raises:
        ManifestError: the parent is not there yet.
    """
    request, parent = run.request, run.teachers.get(1)
    if start is None:
        raise ManifestError(
            f"{request.child} cannot be measured: its parent or grandparent is not there yet",
            where=str(request.path),
            remedy=f"evolve or import {request.parent} first, or plan without --measure",
        )
    if parent is None or data_of(request).chat_template is not None:
        write_start(temporary / "start", request, start.tokenizer, parent)
        parent = temporary / "start"
    runtime = request.manifest.runtime
    roles = all_roles(start.numbers, 1)
    devices = {role: slot.device for role, slot in place(runtime, machine, roles, on_cores(start.made)).slots.items()}
    timing = time_step(start, parent, devices, threads(runtime, machine))
    return price_of(start, home, machine, base, timing, kept_replicas(run), asked)


def _placed(price: Price | None, teachers: Collection[int]) -> list[str]:
    """The roles of a run, as far as they are known; without a price each teacher has one process."""
    return all_roles(price.replicas, price.ranks, price.replicas) if price else all_roles(teachers, 1)


def _forecast(request: Request, price: Price | None) -> list[str]:
    share = price.unlearned_share if price else None
    if share is None or share < UNLEARNED_WARNING:
        return []
    surprise = request.manifest.training_params.routing == "surprise"
    advice = "raise surprise_tau or alpha" if surprise else "use routing surprise, or raise alpha"
    return [
        f"training_params: {share:.0%} of the new tokens that the teachers do not know will not be learned, because "
        f"their target says otherwise; {advice}"
    ]


def plans_text(plans: Sequence[Plan]) -> str:
    """All dry runs of a call, and how long they take one after another: their actors start once."""
    prices = [plan.price for plan in plans if plan.price and not plan.decided]
    texts = [plan_text(plan) for plan in plans]
    if len(prices) > 1:
        start = max(price.phases["start"] for price in prices)
        whole = start + sum(price.whole_seconds - price.phases["start"] for price in prices)
        unsure = max(UNSURE[price.timing] for price in prices)
        low, high = duration_text(whole / unsure), duration_text(whole * unsure)
        texts.append(f"{len(prices)} runs in one call: about {duration_text(whole)} ({low} to {high})")
    return "\n\n".join(texts)


def plan_text(plan: Plan) -> str:
    """One manifest's dry run, a fact a line."""
    exam = _exam(plan.exam)
    known = {
        "method": plan.method,
        "parent": plan.parent or "none (genesis)",
        "grandparent": plan.grandparent or "none",
        "state": plan.decided or (f"waits: {plan.ready}" if plan.ready else "ready"),
        "data": f"{plan.rows} rows, {plan.probes} probes",
        **({"exam": exam} if exam else {}),
        "steps": f"{plan.steps:,} (at most {plan.tokens:,} tokens)",
        **({"readings": _readings(plan.lesson)} if plan.lesson else {}),
        **({"writing": _writing(plan)} if plan.writing else {}),
        **({"space": plan.space.sentence()} if plan.space else {}),
        "teachers": _teachers(plan),
        **{f"teacher {number}": _other(plan, number, title) for number, title in plan.others.items()},
        **({"rehearsal": "; ".join(plan.rehearsal)} if plan.rehearsal else {}),
        **(_priced(plan.price) if plan.price else {"price": "known once its parent is"}),
        "placement": ", ".join(f"{role} on {where}" for role, where in plan.placement.items())
        + f", {plan.threads} threads each",
        "manifest": plan.digest,
    }
    lines = facts([*known.items(), *(("warning", warning) for warning in plan.warnings)])
    return f"{plan.child}\n{indent(lines, '  ')}"


def _readings(lesson: Lesson) -> str:
    """How often each new row is read, and in how many tokens a word."""
    told = f"each new row {lesson.readings:.1f} times (docs/recipe.md: {lesson.asked})"
    if lesson.tokens_per_word is None:
        return told
    beside = (
        "" if lesson.ancestors_tokens_per_word is None else f", the ancestors' {lesson.ancestors_tokens_per_word:.1f}"
    )
    return f"{told}; {lesson.tokens_per_word:.1f} tokens a word{beside}"


def _writing(plan: Plan) -> str:
    """How often the student writes, and how much of what it reads is guessed."""
    told = "{rounds} rounds of {texts} texts, at most {max_new_tokens} tokens each".format(**plan.writing or {})
    return f"{told}; the parent scores them" + " (lengths estimated)" * (plan.price is not None)


def _teachers(plan: Plan) -> str:
    """How many there are, each how often, and whether they keep up with the student."""
    price = plan.price
    if price is None or not price.replicas:
        return str(plan.teachers)
    counts = sorted(set(price.replicas.values()))
    each = counts[0] if len(counts) == 1 else ", ".join(f"{n} of teacher{t}" for t, n in price.replicas.items())
    return f"{plan.teachers}, replicas {each} (the student would wait {price.waiting:.0%} of its time)"


def _other(plan: Plan, number: int, title: str) -> str:
    """Name and kind of a further teacher, and what it takes."""
    price = plan.price
    if price is None or number not in price.teachers:
        return title
    took, memory = price.teachers[number], price.memory_bytes.get(f"teacher{number}", 0)
    sizes = (size_text(size) for size in (took["wire_bytes"], took["cache_bytes"], memory))
    return "{}: wire {}, cache {}, memory {}".format(title, *sizes)


def _exam(found: Detectable) -> str:
    """How many answers decide; empty where nothing is compared or counted."""
    few = few_told(found.gained.probes) if found.gained else ""
    parts = [*([f"short: {few}"] if few else []), *([_gained(found.gained)] if found.gained else [])]
    if found.forgotten:
        parts.append(f"an ancestor counts as forgotten {', '.join(_lost(found.forgotten.values()))}")
    return "; ".join(parts)


def _gained(fewest: Fewest) -> str:
    asked, answers = f"{fewest.probes} own probes", fewest.answers
    if answers is None:
        return f"{asked}: no gain is beyond chance, only the ceiling passes"
    if answers == 0:
        return f"{asked}: a child as good as its parent passes"
    share = answers / fewest.probes
    return f"{asked}: {answers} gained and none lost ({share:.2g}) is the smallest gain that passes below the ceiling"


def _lost(fewest: Iterable[Fewest]) -> Iterator[str]:
    """From how many lost answers on; ancestors for which that is the same number are told together."""
    sizes: dict[int | None, set[int]] = {}
    for one in sorted(fewest, key=lambda one: one.probes):
        sizes.setdefault(one.answers, set()).add(one.probes)
    for answers, probes in sizes.items():
        asked = " or ".join(map(str, sorted(probes)))
        yield f"never of {asked} probes" if answers is None else f"from {answers} lost of {asked} probes"


def _time(price: Price) -> str:
    """How long the whole run takes, between which bounds, and of what that consists."""
    low, high = (duration_text(bound) for bound in price.bounds)
    told = {name: seconds for name, seconds in price.phases.items() if seconds >= 1}
    parts = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in told.items())
    whole = f"about {duration_text(price.whole_seconds)} ({low} to {high})"
    beside = f"; other work has {price.busy:.0%} of the cores now, and beside it a run takes longer"
    return f"{whole}: {parts}; {price.step_seconds:.3f} s a step ({price.timing}){beside * (price.busy >= BUSY)}"


def _priced(price: Price) -> dict[str, str]:
    """What the run will show when it ends, in its words."""
    roles = ", ".join(f"{role} {size_text(size)}" for role, size in price.memory_bytes.items())
    gpu = "".join(f", {role} {size_text(size)} on its GPU" for role, size in price.gpu_bytes.items())
    moving = "" if price.trained_parameters == price.parameters else f", {price.trained_parameters:,} trained"
    guessed = " (dreams estimated)" if price.dreams == "estimated" else ""
    each = f"; most for one of {price.ranks} ranks {size_text(price.rank_wire_bytes)} a step"
    return {
        "student": f"{price.parameters:,} parameters{moving}" + (f", {price.ranks} ranks" * (price.ranks > 1)),
        "tokens": f"{price.backbone_tokens:,} read, {price.trained_tokens:,} trained{guessed}",
        "wire": f"{size_text(price.wire_bytes)} ({size_text(price.wire_bytes_per_step)} a step){guessed}"
        + (each * (price.ranks > 1))
        + (f"; {size_text(price.store_bytes)} in flight" * (price.wire_bytes > 0)),
        "cache": f"{size_text(price.cache_bytes)} (hits {price.cache_hit_share:.0%}){guessed}",
        "memory": f"{size_text(price.peak_memory_bytes)} at its peak: {roles}{gpu}",
        "disk": size_text(price.disk_bytes),
        "time": _time(price),
    }
