"""The laws of one run: what their files hold, whether they test anything, and the case that they judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ladder.errors import ManifestError
from ladder.gates import LAWS, Answers, Case, Exam, Findings, Law, Prompt, read_utterances
from ladder.gates.custom_gates import custom_gate
from ladder.laws.catalogue import law_prompts
from ladder.laws.custom import custom_law
from ladder.laws.limits import cooldown
from ladder.laws.text import check_canaries
from ladder.laws.training import Watch
from ladder.manifest import Request
from ladder.manifest.files import named_files
from ladder.methods import method_of
from ladder.models.chat import NEWLINE
from ladder.setup.context import Run, hosted
from ladder.setup.dataset import Lesson, texts_of
from ladder.setup.usage import Usage

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
