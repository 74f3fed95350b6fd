"""The one preparation: everything of a manifest that can be refused before training is refused here, for every verb.

``plan`` shows what it finds, ``evolve`` goes on from it, and ``submit`` calls it before anything is sent; so a manifest
that one of them refuses is refused by all, in the same words. Rows and probes are read once, and rows are encoded once.
Nothing is written into the home but ids of rows, where the caller keeps them there, and no actor is started.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.actors.placement import Machine, place
from ladder.data.batches import Batches
from ladder.data.examples import Example
from ladder.exam.lint import alike_warnings
from ladder.gates import Probe
from ladder.gates.detectable import Resolution, resolution_of, warnings_of
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.adapters import rehearse
from ladder.models.intake import check_readable
from ladder.models.load import config_of, load_tokenizer
from ladder.models.preflight import named_positions
from ladder.models.scratch import llama_config
from ladder.models.tokenizer import write_tokenizer
from ladder.planning.limits import check_cooldown, check_price, has_limits, last_promotion
from ladder.planning.memory import Shape
from ladder.planning.preview import expected
from ladder.planning.price import Price, price_of
from ladder.registry import Registry
from ladder.registry.lineage import Ancestry, check_attempts, check_teachers
from ladder.run.context import Run, hosted
from ladder.run.dataset import (
    Lesson,
    beginning_warnings,
    build_batches,
    check_held_out,
    data_of,
    encode_lesson,
    origin_of,
    own_probes,
    read_lesson,
    reading_warnings,
    recall_probes,
    replay_warnings,
    start_tokenizer,
)
from ladder.run.dreams import Beginnings, beginnings
from ladder.run.exam import build_exam, check_asked, check_tone
from ladder.run.fit import check_dreams, check_questions, check_rows
from ladder.run.importing import check_imports
from ladder.run.laws import check_laws
from ladder.run.roles import check_sharing
from ladder.run.suites import check_suites
from ladder.sampling.dreams import Dream, read_dreams
from ladder.train.ema import start_weight

EMA_WARNING = 0.01
"""Weight of the start in the average of weights from which a person is told of it."""


@dataclass(frozen=True)
class Start:
    """What the student starts as, and what it will read.

    Args:
        ancestry: whom the child comes from.
        folders: of all ancestors, by digest.
        tokenizer: the child's.
        config, shape: of the student; ``trained`` of its numbers, or of its adapter's, move.
        teachers: folders of the teachers that speak or dream, by number.
        speakers: those of them that speak on more than their own dreams.
        rows: encoded, by source, without dreams.
        beginnings: what its dreams begin with; None where it has no dreams, or they are written already.
        dreamt: its dreams, where they are written already.
    """

    request: Request
    lesson: Lesson
    ancestry: Ancestry
    folders: Mapping[str, Path]
    tokenizer: PreTrainedTokenizerFast
    config: PretrainedConfig
    shape: Shape
    trained: int
    teachers: dict[int, Path]
    speakers: frozenset[int]
    rows: dict[str, list[Example]]
    beginnings: Beginnings | None
    dreamt: list[Dream]

    @cached_property
    def batches(self) -> Batches:
        """Of the run; exact but for dreams that nobody dreamt yet, for which there are stand-ins."""
        return self.batches_with(self.dreamt or self._expected())

    def batches_with(self, dreams: list[Dream]) -> Batches:
        """Of the run, with these dreams.

        Raises:
            ManifestError: as ``build_batches``.
        """
        return build_batches(self.request, self.tokenizer, self.rows, dreams)

    def _expected(self) -> list[Dream]:
        wanted, seed = self.request.manifest.stabilizers.dreams, self.request.manifest.seeds.dreams
        if self.beginnings is None or not isinstance(wanted, Dreams):
            return []
        longest, dreamers = data_of(self.request).max_length, _dreamers(self.request, self.teachers)
        guessed = expected(wanted, *self.beginnings, self.tokenizer, self.lesson.replay, longest, seed)
        return [Dream(ids, opening, dreamers[n % len(dreamers)], "") for n, (ids, opening) in enumerate(guessed)]


@dataclass(frozen=True)
class Work:
    """What a run has in hand before it trains.

    Args:
        own: the child's probes.
        recall: those that its ancestors left, by name.
        exam: what its exam can tell apart; without its ancestors' probes where its parent is not there yet.
        start: None where its parent is not there yet, or where it is trained already.
        price: None where nobody asked for it, and no limit of the manifest does.
        warnings: what a person should know before it trains; ``reading_warnings`` are those about how texts are read.
        rested: the family's newest promotion (None where there was none) and now, UTC.
    """

    lesson: Lesson
    own: tuple[Probe, ...]
    recall: Mapping[str, tuple[Probe, ...]]
    exam: Resolution
    start: Start | None = None
    price: Price | None = None
    warnings: list[str] = field(default_factory=list)
    reading_warnings: list[str] = field(default_factory=list)
    rested: tuple[datetime | None, datetime] = (None, datetime.min)


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
        check_attempts(request, registry)
        check_imports(request, registry)
        check_teachers(request, run.ancestry, run.teachers)
    lesson = read_lesson(request, list(run.folders.values()), decided=decided)
    own, recall = own_probes(request), recall_probes(run.ancestors)
    if not decided:
        _check_manifest(request, lesson, own, recall, whole=there)
    exam = Resolution() if request.parent is None else resolution_of(request.manifest.gates, own, recall)
    if trained and not priced:
        return Work(lesson, own, recall, exam, warnings=replay_warnings(lesson))
    start = _start(run, lesson, tokens) if there else None
    if start and not decided:
        _check_start(start, own, recall)
    begins = not decided and not trained  # What was trained already is neither too early nor too dear.
    events = registry.history(request.child.family) if registry else []
    if begins:
        check_cooldown(request, events, now)
    devices, limits = request.manifest.runtime.devices, request.manifest.budget
    # A cluster is asked what it has only where that can matter.
    if machine and any(device.startswith("cuda") for _, device in devices):
        place(devices, machine())
    price = price_of(start, home, machine(), bare) if machine and start and (priced or has_limits(limits)) else None
    if price and begins:
        check_price(request, price)
    read = _warnings_of_start(run, start, lesson, own) if start else []
    return Work(
        lesson,
        own,
        recall,
        exam,
        start,
        price,
        warnings=[
            *_manifest_warnings(request),
            *replay_warnings(lesson),
            *warnings_of(request.manifest.gates, exam),
            *alike_warnings(own),
            *read,
        ],
        reading_warnings=read,
        rested=(last_promotion(events), now),
    )


def _check_manifest(
    request: Request, lesson: Lesson, own: tuple[Probe, ...], recall: Mapping[str, tuple[Probe, ...]], *, whole: bool
) -> None:
    """What the manifest and its files alone decide."""
    check_held_out(lesson, own, recall)
    check_laws(request, lesson, whole=whole or not request.manifest.stabilizers.replay_buffer)
    check_suites(request)
    check_tone(request)
    check_sharing(request)


def _check_start(start: Start, own: tuple[Probe, ...], recall: Mapping[str, tuple[Probe, ...]]) -> None:
    """What the student's tokenizer and shape decide besides."""
    exam, tokenizer = build_exam(start.request, start.tokenizer, own, recall), start.tokenizer
    check_asked(exam, tokenizer)
    check_rows([start.config, *(config_of(folder) for folder in start.teachers.values())], start.rows)
    check_questions(start.config, tokenizer, exam.paper())
    wanted = start.request.manifest.stabilizers.dreams
    if start.beginnings is not None and isinstance(wanted, Dreams):
        check_dreams(start.config, tokenizer, wanted, *start.beginnings)
    _ = start.batches  # They refuse a batch that has no room for its sources.


def _warnings_of_start(run: Run, start: Start, lesson: Lesson, own: tuple[Probe, ...]) -> list[str]:
    """What a person should know of how texts are read."""
    begun = beginning_warnings(start.tokenizer, run.teachers.get(1))
    return begun + reading_warnings(run.request, lesson, own, start.tokenizer)


def _start(run: Run, lesson: Lesson, tokens: Path) -> Start:
    """Everything of the student but its weights."""
    request, manifest, parent = run.request, run.request.manifest, run.teachers.get(1)
    origin = origin_of(request, parent)
    if origin is not None and parent is None:
        check_readable(origin, "student.model")
    tokenizer = _tokenizer(run, lesson)
    if origin is not None:
        config, shape = config_of(origin), Shape.of_folder(origin)
    else:
        assert manifest.student.architecture is not None
        config = llama_config(manifest.student.architecture, len(tokenizer))
        shape = Shape.of_architecture(manifest.student.architecture, len(tokenizer))
    lora, teachers = manifest.student.adapter, {number: run.teachers[number] for number in hosted(run)}
    wanted, dreamers = manifest.stabilizers.dreams, _dreamers(request, teachers)
    written = run.dreams.is_file()
    dreaming = bool(dreamers) and not written
    return Start(
        request=request,
        lesson=lesson,
        ancestry=run.ancestry,
        folders=run.folders,
        tokenizer=tokenizer,
        config=config,
        shape=shape,
        trained=rehearse(config, lora) if lora else shape.parameters,
        teachers=teachers,
        speakers=frozenset(method_of(manifest).teachers() & teachers.keys()),
        rows=encode_lesson(request, tokenizer, named_positions(config), lesson, tokens),
        beginnings=beginnings(request, wanted, tokenizer, lesson) if isinstance(wanted, Dreams) and dreaming else None,
        dreamt=read_dreams(run.dreams) if dreamers and written else [],
    )


def _tokenizer(run: Run, lesson: Lesson) -> PreTrainedTokenizerFast:
    """The child's, as whoever loads its folder gets it."""
    if run.start.is_dir():
        return load_tokenizer(run.start)
    parent = run.teachers.get(1)
    tokenizer = start_tokenizer(run.request, lesson, parent)
    if parent is not None and data_of(run.request).chat_template is None:
        return tokenizer
    with tempfile.TemporaryDirectory(prefix="ladder-tokenizer-") as folder:
        write_tokenizer(Path(folder), tokenizer)
        return load_tokenizer(Path(folder))


def _dreamers(request: Request, teachers: Mapping[int, Path]) -> list[int]:
    return sorted(method_of(request.manifest).dreamers() & teachers.keys())


def _manifest_warnings(request: Request) -> list[str]:
    """What a person should know of the manifest by itself."""
    manifest, found = request.manifest, []
    stabilizers, params = manifest.stabilizers, manifest.training_params
    left = start_weight(params.steps, stabilizers.ema_decay) if stabilizers.ema else 0.0
    if left > EMA_WARNING:
        found.append(f"stabilizers.ema_decay: the start still weighs {left:.0%} in the average after the last step")
    distils = manifest.evolution_request.training_method == "teacher_student_distillation"
    if distils and params.routing == "seed" and params.alpha < 0.5:
        found.append("training_params.routing: seed with a small alpha copies the teachers and hardly learns new facts")
    if request.parent and not stabilizers.replay_buffer and not isinstance(stabilizers.dreams, Dreams):
        found.append("stabilizers: neither replay nor dreams; this child will probably forget")
    if data_of(request).probes is None:
        found.append("data.probes: none, so the generalise gate has nothing to measure")
    return found
