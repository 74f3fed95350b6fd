"""The one preparation: everything of a manifest that can be refused before training is refused here, for every verb.

``plan`` shows what it finds, ``evolve`` goes on from it, and ``submit`` calls it before anything is sent; so a manifest
that one of them refuses is refused by all, in the same words. Rows and probes are read once, and rows are encoded once.
Nothing is written into the home but ids of rows, where the caller keeps them there, and no actor is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from ladder.actors.placement import Machine, asks_for_nodes, place
from ladder.errors import LawBroken
from ladder.exam import Exam, Probe, PromptSet, question, read_prompts
from ladder.gates.detectable import Detectable, detectable, warnings_of
from ladder.laws import budget, cooldown
from ladder.manifest import Budget, Dreams, Request, dream_prompts, written_prompts
from ladder.methods import method_of
from ladder.models import config_of
from ladder.planning.lesson import Lesson, is_from_scratch, lesson_of
from ladder.planning.price import Price, price_of
from ladder.planning.space import Space, space_after
from ladder.planning.start import Start, start_of
from ladder.planning.store import check_store, may_be_too_much
from ladder.registry import Event, Registry, lineage
from ladder.setup import (
    Dataset,
    Run,
    beginning_warnings,
    build_exam,
    check_asked,
    check_documents,
    check_dreams,
    check_held_out,
    check_imports,
    check_laws,
    check_others,
    check_questions,
    check_rows,
    check_sharing,
    check_suites,
    check_tokenizer_text,
    check_tone,
    data_of,
    own_probes,
    read_dataset,
    reading_warnings,
    readout_warnings,
    recall_probes,
    replay_warnings,
    student_ranks,
)
from ladder.train.ema import start_weight

GIB = 2**30
EMA_WARNING = 0.01
"""Weight of the start in the average of weights from which a person is told of it."""


@dataclass(frozen=True)
class Work:
    """What a run has in hand before it trains.

    Args:
        own: the child's probes.
        recall: those that its ancestors left, by name.
        exam: what its exam can tell apart; without its ancestors' probes where its parent is not there yet.
        start: None where its parent is not there yet, or where it is trained already.
        price: None where nobody asked for it, and nothing of the manifest does.
        asked: what its exam asks; None where there is no start.
        replicas: of each teacher, by number.
        warnings: what a person should know before it trains; ``reading_warnings`` are those about how texts are read.
        rested: the family's newest promotion (None where there was none) and now, UTC.
        lesson: how its new rows are read; None where there is no start, or it is trained already.
        space: what its line's examinations say is left in the model; None where they say nothing, or it is trained.
    """

    dataset: Dataset
    own: tuple[Probe, ...]
    recall: Mapping[str, tuple[Probe, ...]]
    exam: Detectable
    start: Start | None = None
    price: Price | None = None
    asked: PromptSet | None = None
    replicas: Mapping[int, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reading_warnings: list[str] = field(default_factory=list)
    rested: tuple[datetime | None, datetime] = (None, datetime.min)
    lesson: Lesson | None = None
    space: Space | None = None


def prepare(
    run: Run,
    registry: Registry | None,
    home: Path,
    machine: Callable[[], Machine] | None,
    *,
    bare: int,
    tokens: Path,
    decided: bool = False,
    priced: bool = False,
) -> Work:
    """Check a run that has not been trained yet, and read what it needs.

    What depends on the parent is left out where that is not there yet. The caller sees to ``run.ancestry.obstacle``,
    which is nothing that is wrong with the manifest, and writes the day of the run (``dated``).

    Args:
        registry: None where there is no home yet.
        machine: where it will run, asked only where something depends on it; None where that is not known here.
        bare: bytes of an actor that has loaded its libraries and no model.
        tokens: folder for encoded rows.
        decided: it was carried out before, and nothing of it is refused any more.
        priced: say what it takes also where no limit asks for that.

    Raises:
        ManifestError, DataError, UsageError, ModelError, GateError: something of the manifest, or of what it names,
            cannot be carried out.
        TokenizerMismatch: teachers do not share one tokenizer.
        LawBroken: it is too early, or the run would take too much.
    """
    request, there = run.request, run.request.parent is None or run.ancestry.parent is not None
    trained, now = run.candidate.is_dir(), datetime.now(UTC)
    if not decided:
        lineage.check_attempts(request, registry)
        check_imports(request, registry)
        lineage.check_teachers(request, run.ancestry, run.teachers)
        check_others(run)
    dataset = read_dataset(request, list(run.folders.values()), decided=decided)
    if run.rehearsal.lessons:
        dataset = dataset.rehearsed(run.rehearsal.times)
    own, recall = own_probes(request), recall_probes(run.ancestors)
    if not decided:
        _check_manifest(request, dataset, own, recall, whole=there)
        check_documents(request, list(run.folders.values()), own, recall)
    exam = Detectable() if request.parent is None else detectable(request.manifest.gates, own, recall)
    if trained and not priced:
        return Work(dataset, own, recall, exam, warnings=replay_warnings(dataset))
    start = start_of(run, dataset, tokens, student_ranks(run, machine)) if there else None
    exam_of = build_exam(request, start.tokenizer, own, recall) if start else None
    if start and exam_of and not decided:
        _check_start(start, exam_of)
    begins = not decided and not trained  # What was trained already is neither too early nor too dear.
    events = registry.history(request.child.family) if registry else []
    if begins:
        check_cooldown(request, events, now)
    if begins and start and machine and may_be_too_much(start):
        check_store(start, home, machine())
    runtime, limits = request.manifest.runtime, request.manifest.budget
    # A cluster is asked what it has only where that can matter.
    if machine and asks_for_nodes(runtime):
        place(runtime, machine())
    wanted = priced or has_limits(limits) or runtime.teachers.replicas == "auto"
    price = None
    if machine and start and exam_of and wanted:
        price = price_of(start, home, machine(), bare, kept=kept_replicas(run), asked=exam_of.prompt_set())
    if price and begins:
        check_price(request, price)
    read = _warnings_of_start(run, start, dataset, own) if start else []
    lesson = lesson_of(start) if start and not trained else None
    space = space_after(registry, run.ancestry.ancestors) if registry and start and begins else None
    return Work(
        dataset,
        own,
        recall,
        exam,
        start,
        price,
        exam_of.prompt_set() if exam_of else None,
        price.replicas if price else _replicas(start) if start else {},
        warnings=[
            *_manifest_warnings(request),
            *rehearsal_warnings(request, [*own, *chain.from_iterable(recall.values())]),
            *replay_warnings(dataset),
            *warnings_of(request.manifest.gates, exam),
            *question.alike_warnings(own),
            *(readout_warnings(exam_of, run.folders) if exam_of else []),
            *(lesson.warning() if lesson and begins else []),
            *(_warnings_of_writing(start) if start and begins else []),
            *(space.warning() if space else []),
            *read,
        ],
        reading_warnings=read,
        rested=(last_promotion(events), now),
        lesson=lesson,
        space=space,
    )


def kept_replicas(run: Run) -> dict[int, int]:
    """The replicas of each teacher that a run began with, by number; nothing before it has begun."""
    return {int(number): count for number, count in run.notes().get("replicas", {}).items()}


def _replicas(start: Start) -> dict[int, int]:
    """How many replicas each teacher has, by number, where nothing depends on the machine."""
    asked = start.request.manifest.runtime.teachers.replicas
    return dict.fromkeys(start.numbers, 1 if asked == "auto" else asked)


def _check_manifest(
    request: Request, dataset: Dataset, own: tuple[Probe, ...], recall: Mapping[str, tuple[Probe, ...]], *, whole: bool
) -> None:
    """What the manifest and its files alone decide."""
    check_tokenizer_text(request)
    check_held_out(dataset, own, recall)
    check_laws(request, dataset, whole=whole or not request.manifest.stabilizers.replay_buffer)
    check_suites(request)
    check_tone(request)
    check_sharing(request)


def _check_start(start: Start, exam: Exam) -> None:
    """What the student's tokenizer and shape decide besides."""
    tokenizer = start.tokenizer
    check_asked(exam, tokenizer)
    check_rows([start.config, *(config_of(folder) for folder in start.teachers.values())], start.rows)
    check_questions(start.config, tokenizer, exam.prompt_set())
    wanted = start.request.manifest.stabilizers.dreams
    if start.beginnings is not None and isinstance(wanted, Dreams):
        check_dreams(start.config, tokenizer, wanted, *start.beginnings[:2])
    _ = start.batches  # They refuse a batch that has no room for its sources.


def _warnings_of_start(run: Run, start: Start, dataset: Dataset, own: tuple[Probe, ...]) -> list[str]:
    """What a person should know of how texts are read."""
    begun = beginning_warnings(start.tokenizer, run.teachers.get(1))
    return begun + reading_warnings(run.request, dataset, own, start.tokenizer)


def _warnings_of_writing(start: Start) -> list[str]:
    """What a person should know of what the student will write."""
    writing, found = start.writing, list[str]()
    if writing is None:
        return found
    if writing.left_out:
        found.append(
            f"training_params.written.max_new_tokens: {writing.left_out} of the prompts that the student is to answer "
            "leave no room for that many tokens within data.max_length and its positions; they are left out"
        )
    if writing.tried and is_from_scratch(start.tokenizer):
        found.append(
            "training_params.recipe: self_distillation needs a parent that can use what it reads, and a small model "
            "from scratch seldom can; the run tries it before its first step, and says what came out"
        )
    return found


def rehearsal_warnings(request: Request, asked: Iterable[Probe]) -> list[str]:
    """What a person should know of prompts of dreams, and of those that the student answers, that are the exam's own:
    the parent would coach its child."""
    files = {
        ("stabilizers.dreams.prompts", "dream of"): dream_prompts(request.manifest),
        ("training_params.written.prompts", "let it answer"): written_prompts(request.manifest),
    }
    questions, found = {probe.question() for probe in asked}, list[str]()
    for (where, do), file in files.items():
        both = questions & set(read_prompts(request.file(file))) if file else set()
        if both:
            found.append(
                f"{where}: the exam asks {len(both)} of {file}, too, so its gates say how well "
                f"these are rehearsed and not what else is kept; {do} other questions of the same kind"
            )
    return found


def has_limits(limits: Budget) -> bool:
    """Whether a run must be priced before it may begin."""
    return limits.max_memory_gib is not None or limits.max_disk_gib is not None


def check_price(request: Request, price: Price) -> None:
    """Refuse a run that would take more memory or disk than its budget allows.

    Raises:
        LawBroken: names the limit and what the run would take.
    """
    limits = request.manifest.budget
    asked = Budget(max_memory_gib=limits.max_memory_gib, max_disk_gib=limits.max_disk_gib)
    spent = {"max_memory_gib": price.peak_memory_bytes / GIB, "max_disk_gib": price.disk_bytes / GIB}
    for broken in budget(asked, spent):
        raise LawBroken(
            f"by the plan's price: {broken.found}",
            where=broken.where,
            remedy="raise the limit, or plan a smaller run: `ladder plan` says what takes how much",
        )


def last_promotion(events: Iterable[Event]) -> datetime | None:
    """When the family's newest promotion was, UTC; None where there was none."""
    return max((event.time for event in events if event.kind == "promote"), default=None)


def check_cooldown(request: Request, events: Iterable[Event], now: datetime | None = None) -> None:
    """Refuse a child that comes too early after the family's last promotion.

    Args:
        events: the family's history.
        now: the present time when left out; UTC.

    Raises:
        LawBroken: says when the child will be allowed.
    """
    hours = request.manifest.laws.cooldown_hours
    if hours is None:
        return
    for broken in cooldown(hours, last_promotion(events), now or datetime.now(UTC)):
        raise LawBroken(broken.found, where=broken.where, remedy="run the same command then")


def _manifest_warnings(request: Request) -> list[str]:
    """What a person should know of the manifest by itself."""
    manifest, found = request.manifest, []
    stabilizers, params = manifest.stabilizers, manifest.training_params
    left = start_weight(params.steps, stabilizers.ema_decay) if stabilizers.ema else 0.0
    if left > EMA_WARNING:
        found.append(f"stabilizers.ema_decay: the start still weighs {left:.0%} in the average after the last step")
    if method_of(manifest).has_target and params.routing == "agreement" and params.alpha < 0.5:
        found.append(
            "training_params.routing: agreement with a small alpha copies the teachers and hardly learns new facts"
        )
    if request.parent and not stabilizers.replay_buffer and not isinstance(stabilizers.dreams, Dreams):
        found.append("stabilizers: neither replay nor dreams; this child will probably forget")
    if data_of(request).probes is None:
        found.append("data.probes: none, so the generalise gate has nothing to measure")
    elif request.parent is None and manifest.gates.generalize.minimum == 0:
        found.append(
            "gates.generalize.minimum: none, and a first generation has no parent to beat, so one that answers none of "
            "its probes is promoted; write what it must reach, such as 0.5"
        )
    return found
