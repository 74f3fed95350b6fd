"""The laws of one run: what their files hold, the case that they judge, and the watch that may halt its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.actors.session import fetch
from ladder.actors.student import StudentGroup
from ladder.errors import Halted, ManifestError
from ladder.exam.ask import sample_openings
from ladder.exam.exam import Sampling
from ladder.gates import LAWS, Answers, Case, Exam, Findings, Law, Prompt, read_utterances
from ladder.gates.custom_gates import custom_gate
from ladder.laws.catalogue import law_prompts
from ladder.laws.custom import custom_law
from ladder.laws.law import Violation
from ladder.laws.limits import cooldown
from ladder.laws.text import check_canaries
from ladder.laws.training import TRAINING_SAMPLES, Watch
from ladder.manifest import Request
from ladder.manifest.files import named_files
from ladder.methods import method_of
from ladder.models.chat import NEWLINE
from ladder.run.hooks import Hook
from ladder.setup.context import Run, hosted
from ladder.setup.dataset import Lesson, data_of, own_probes, texts_of
from ladder.setup.usage import Usage
from ladder.train.spec import StepReport

_UNKNOWN = ("", "")
"""Digests of a teacher of which the run noted none; the law of unchanged parents counts that as broken."""


def laws_of(request: Request) -> tuple[Law, ...]:
    """Ladder's own laws, and those that the manifest names besides.

    Raises:
        ManifestError: one of these cannot be loaded.
    """
    return (*LAWS, *map(custom_law, request.manifest.laws.custom))


def prompts_of(request: Request) -> tuple[Prompt, ...]:
    """What has to be answered for the laws alone."""
    return law_prompts(request.manifest, _lines(request))


def check_laws(request: Request, lesson: Lesson, *, whole: bool = True) -> None:
    """Refuse, before anything is trained, laws that cannot be examined or that test nothing, and gates of somebody else
    that cannot be loaded.

    Args:
        whole: the lesson holds what its ancestors left. Where it does not yet, a canary may still be in that.

    Raises:
        DataError: a law's file cannot be read or is empty, or a canary is in no row of the lesson.
        ManifestError: as ``laws_of`` and ``custom_gate``, or a divergence is limited that nobody measures.
    """
    laws_of(request)
    for gate in request.manifest.gates.custom:
        custom_gate(gate)
    _check_divergence(request)
    lines, path, decoding = _lines(request), request.manifest.laws.canaries, request.manifest.gates.decoding
    if path is not None:
        rows = texts_of([*lesson.new, *lesson.replay]) if whole else None
        stops = [NEWLINE] if decoding.stop is None else decoding.stop
        check_canaries(lines[path], rows, stops, decoding.max_new_tokens, str(request.file(path)))


def case_of(run: Run, exam: Exam, child: Answers, parent: Answers | None) -> Case:
    """Everything that the laws of a run examine."""
    request, notes = run.request, run.notes()
    frozen = notes.get("frozen", {})
    before, after = ({f"teacher{n}": frozen.get(str(n), _UNKNOWN)[when] for n in hosted(run)} for when in (0, 1))
    return replace(
        text_case(request, exam, child, parent),
        files=[request.file(file) for file in request.files],
        allowed=[request.folder(source) for source in request.manifest.laws.allowed_sources],
        tokens=notes.get("tokens"),
        minutes=_minutes(notes),
        before=before,
        after=after,
        memory_gib=_memory_gib(notes),
        disk_gib=notes["disk_bytes"] / 2**30 if "disk_bytes" in notes else None,
        noted=watch_of(run, notes).findings() | _rested(run),
    )


def text_case(request: Request, exam: Exam, child: Answers, parent: Answers | None) -> Case:
    """What the laws of the text family examine; there is nothing in it for the others."""
    return Case(
        manifest=request.manifest,
        digests=request.files,
        lines=_lines(request),
        exam=exam,
        child=child,
        parent=parent,
        files=[],
        allowed=[],
        tokens=None,
        minutes=None,
        before={},
        after={},
    )


def watch_of(run: Run, notes: Mapping[str, Any]) -> Watch:
    """The watch over a run's training, with what was noted of it."""
    request = run.request
    path = request.manifest.laws.canaries
    return Watch.of(request.manifest, _lines(request)[path] if path else (), notes.get("watch"))


def _rested(run: Run) -> dict[str, Findings]:
    """What ``laws.cooldown_hours`` found when training began."""
    hours, noted = run.request.manifest.laws.cooldown_hours, run.notes().get("cooldown")
    if hours is None or noted is None:
        return {}
    last, begun = (datetime.fromisoformat(noted[when]) if noted[when] else None for when in ("last", "begun"))
    assert begun is not None
    remark = "" if last else "the family had no promotion before"
    return {"cooldown_hours": Findings(1, tuple(cooldown(hours, last, begun)), remark=remark)}


def _lines(request: Request) -> dict[str, tuple[str, ...]]:
    """What the laws' files hold, by their path as written."""
    files = [path for field, path in named_files(request.manifest) if field.startswith("laws.")]
    return {path: tuple(read_utterances(request.file(path))) for path in files}


def _check_divergence(request: Request) -> None:
    laws, method = request.manifest.laws.training, method_of(request.manifest)
    if laws and laws.max_kl is not None and not (method.teachers() | method.dreamers()):
        raise ManifestError(
            f"nobody teaches in {request.manifest.evolution_request.training_method}, so no divergence is measured",
            where="laws.training.max_kl",
            remedy="leave it out, or let the child dream (stabilizers.dreams)",
        )


def _memory_gib(notes: dict[str, Any]) -> float | None:
    peaks = Usage.of_notes(notes).memory_bytes
    return sum(peaks.values()) / 2**30 if peaks else None


def _minutes(notes: dict[str, Any]) -> float | None:
    return notes["seconds"] / 60 if "seconds" in notes else None


_REMEDY = (
    "nothing was recorded and HEAD stays; change data, training_params or the law: a changed manifest is another run"
)


def check_not_halted(run: Run) -> None:
    """Refuse to go on with a run that a law halted.

    Raises:
        Halted: it was.
    """
    if halted := run.notes().get("halted"):
        raise _halt(Violation(**halted), "was halted before")


@dataclass
class Vigil(Hook):
    """Judges the steps of one run, and what the student writes, by the laws of its manifest.

    It only judges: ``Halt`` ends the run, once its steps are logged.

    Args:
        openings: what the texts begin with that the student writes, as ids.
        sample: lets the student go on from these.
        broken: what must halt the run.
    """

    run: Run
    watch: Watch
    openings: list[list[int]]
    sample: Callable[[list[list[int]], Sampling], list[str]]
    broken: list[Violation] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, tokenizer: PreTrainedTokenizerFast, group: StudentGroup, done: int) -> Vigil:
        """Begin, or go on from what was noted with the checkpoint of so many steps."""
        watch = watch_of(run, run.marked(done))
        return cls(run, watch, _openings(run, tokenizer), lambda *asked: fetch(group.sample(*asked)))

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
        self._count(self.watch.see(report))

    def before_checkpoint(self, done: int) -> None:
        """Judge what the student writes after so many steps, where it is time."""
        if self.every is not None and done % self.every == 0:
            self._count(self.watch.read(done, self.sample(self.openings, _sampling(self.run, done))))

    def to_dict(self) -> dict[str, Any]:
        """What the run notes at a checkpoint."""
        return self.watch.to_dict()

    def _count(self, violations: list[Violation]) -> None:
        if self.run.request.manifest.laws.on_broken == "halt":
            self.broken += violations


@dataclass(frozen=True)
class Halt(Hook):
    """Ends a run by what the laws found, and notes that it is over.

    It comes after whoever logs the steps and, of a checkpoint, after that is written: the last steps of a halted run
    are what a person wants to see.
    """

    laws: Vigil

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


def _openings(run: Run, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """What texts begin with: the start token, and what the exam will ask for this child and its laws."""
    if run.request.manifest.laws.training is None or run.request.manifest.laws.training.sample_every is None:
        return []
    own = [probe.question() for probe in own_probes(run.request) if probe.is_written]
    controls = data_of(run.request).control_tokens
    return sample_openings(tokenizer, [*own, *prompts_of(run.request)], _sampling(run, 0).count, controls)


def _sampling(run: Run, done: int) -> Sampling:
    manifest = run.request.manifest
    count = min(TRAINING_SAMPLES, manifest.laws.sampled_answers)
    return Sampling(count, manifest.laws.sampled_tokens, manifest.seeds.data + done)


def _halt(broken: Violation, what: str) -> Halted:
    return Halted(f"law {broken.law} {what} at {broken.where}: {broken.found}", where="laws.training", remedy=_REMEDY)
