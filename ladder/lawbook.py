"""The laws of one run: what their files hold, whether they test anything, and the case that they judge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ladder.gates import LAWS, Answers, Case, Exam, Law, Prompt, read_utterances
from ladder.gates.canaries import check_canaries
from ladder.gates.custom_laws import custom_law
from ladder.gates.judge import law_prompts
from ladder.lesson import Lesson, texts_of
from ladder.manifest import Request
from ladder.manifest.paths import named_files
from ladder.run import Run, hosted

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


def check_laws(request: Request, lesson: Lesson) -> None:
    """Refuse, before anything is trained, laws that cannot be examined or that test nothing.

    Raises:
        DataError: a law's file cannot be read or is empty, or a canary is in no row of the lesson.
        ManifestError: as ``laws_of``.
    """
    laws_of(request)
    lines, path, decoding = _lines(request), request.manifest.laws.canaries, request.manifest.gates.decoding
    if path is not None:
        rows = texts_of([*lesson.new, *lesson.replay])
        check_canaries(lines[path], rows, decoding.stop, decoding.max_new_tokens, str(request.file(path)))


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


def _lines(request: Request) -> dict[str, tuple[str, ...]]:
    """What the laws' files hold, by their path as written."""
    files = [path for field, path in named_files(request.manifest) if field.startswith("laws.")]
    return {path: tuple(read_utterances(request.file(path))) for path in files}


def _minutes(notes: dict[str, Any]) -> float | None:
    return notes["seconds"] / 60 if "seconds" in notes else None
