"""A run before it is run: its ancestors' folders and its batches, with stand-ins for dreams that nobody dreamt yet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ladder.ancestry import Ancestry, lineage_of
from ladder.data.batches import Batches
from ladder.data.dreams import Dream, read_dreams
from ladder.data.template import dated
from ladder.dreaming import beginnings
from ladder.errors import NotFound
from ladder.lawbook import check_laws
from ladder.lesson import (
    Lesson,
    build_batches,
    chosen_day,
    data_of,
    origin_of,
    read_lesson,
    start_tokenizer,
    write_start,
)
from ladder.manifest import Request
from ladder.manifest.names import run_name
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.load import config_of, load_tokenizer
from ladder.pricing.dreams import expected
from ladder.pricing.shape import Shape
from ladder.registry import Generation, Registry


@dataclass(frozen=True)
class Outlook:
    """What is known of a run beforehand.

    Args:
        start: folder of the child's tokenizer; with the weights that it starts with, where the outlook is whole.
        shape: of the student.
        ancestry: whom the child comes from.
        folders: of all ancestors, by digest.
        teachers: folders of the teachers that speak or dream, by number.
        speakers: those of them that speak on more than their own dreams.
        batches: of the run; exact but for dreams.
        dreamt: whether its dreams lie in the run's folder already.
    """

    request: Request
    start: Path
    shape: Shape
    ancestry: Ancestry
    folders: dict[str, Path]
    teachers: dict[int, Path]
    speakers: frozenset[int]
    batches: Batches
    dreamt: bool


@contextmanager
def outlook(
    request: Request, registry: Registry | None, home: Path, *, whole: bool = False
) -> Iterator[Outlook | None]:
    """Look ahead; None where the parent, or the grandparent, is not there yet. What it writes is gone afterwards.

    Args:
        whole: also write the weights that the student starts with, where they are not the parent's own.
    """
    found = ancestors(request, registry)
    if found is None:
        yield None
        return
    ancestry, by_digest = _line(found, registry)
    folders = {number: by_digest[generation.digest] for number, generation in found.items()}
    lesson = read_lesson(request, list(by_digest.values()))
    check_laws(request, lesson)
    day = _noted_day(request, home) or chosen_day(request, folders.get(1))
    with tempfile.TemporaryDirectory(prefix="ladder-plan-") as temporary, dated(day):
        start = _start(request, lesson, folders.get(1), Path(temporary), whole=whole)
        method = method_of(request.manifest)
        hosted = (method.teachers() | method.dreamers()) & folders.keys()
        dreams, dreamt = _dreams(request, home, load_tokenizer(start), lesson, sorted(method.dreamers() & hosted))
        yield Outlook(
            request,
            start,
            _shape(request, start, folders.get(1)),
            ancestry,
            by_digest,
            {number: folders[number] for number in sorted(hosted)},
            frozenset(method.teachers() & hosted),
            build_batches(request, start, lesson, dreams, Path(temporary) / "tokens"),
            dreamt,
        )


def _noted_day(request: Request, home: Path) -> str | None:
    """The day that a run which began already writes."""
    notes = home / "runs" / run_name(request.child, request.digest) / "run.json"
    day: str | None = json.loads(notes.read_text(encoding="utf-8")).get("today") if notes.is_file() else None
    return day


def ancestors(request: Request, registry: Registry | None) -> dict[int, Generation] | None:
    """Parent (1) and grandparent (2), those that the manifest names; None where one of them is not there."""
    named = {number: str(name) for number, name in ((1, request.parent), (2, request.grandparent)) if name}
    if not named:
        return {}
    if registry is None:
        return None
    try:
        return {number: registry.find(name) for number, name in named.items()}
    except NotFound:
        return None


def ancestor_folders(request: Request, registry: Registry | None) -> dict[str, Path]:
    """Folders of all ancestors by name, oldest first; none where the parent, or the grandparent, is not there yet."""
    ancestry, by_digest = _line(ancestors(request, registry) or {}, registry)
    return {known.ref: by_digest[known.digest] for known in ancestry.ancestors}


def _line(found: dict[int, Generation], registry: Registry | None) -> tuple[Ancestry, dict[str, Path]]:
    """The parent's line, and the folder of each ancestor by digest, oldest first."""
    if registry is None or not found:
        return Ancestry(None, None, ()), {}
    line = lineage_of(found[1], registry)
    ancestry = Ancestry(found[1], found.get(2), line)
    return ancestry, {one.digest: registry.materialize(one) for one in (*line, *found.values())}


def _start(request: Request, lesson: Lesson, parent: Path | None, folder: Path, *, whole: bool) -> Path:
    if parent is not None and data_of(request).chat_template is None:
        return parent
    if whole:
        write_start(folder / "start", request, lesson, parent)
    else:
        start_tokenizer(request, lesson, parent).save_pretrained(folder / "start")
        if parent is not None:
            config_of(parent).save_pretrained(folder / "start")
    return folder / "start"


def _shape(request: Request, start: Path, parent: Path | None) -> Shape:
    origin, architecture = origin_of(request, parent), request.manifest.student.architecture
    if origin is not None:
        return Shape.of_folder(origin)
    assert architecture is not None
    return Shape.of_architecture(architecture, len(load_tokenizer(start)))


def _dreams(
    request: Request, home: Path, tokenizer: PreTrainedTokenizerFast, lesson: Lesson, dreamers: Sequence[int]
) -> tuple[list[Dream], bool]:
    """The run's dreams where it has dreamt them, else stand-ins; and whether it has."""
    wanted, longest = request.manifest.stabilizers.dreams, data_of(request).max_length
    if not isinstance(wanted, Dreams) or not dreamers:
        return [], False
    written = home / "runs" / run_name(request.child, request.digest) / "dreams.jsonl"
    if written.is_file():
        return read_dreams(written), True
    kind, begins = beginnings(request, wanted, tokenizer, lesson)
    guessed = expected(wanted, kind, begins, tokenizer, lesson.replay, longest, request.manifest.seeds.dreams)
    return [
        Dream(ids, opening, dreamers[number % len(dreamers)], "") for number, (ids, opening) in enumerate(guessed)
    ], False
