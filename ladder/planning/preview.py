"""A run before it is run: its ancestors' folders and its batches, with stand-ins for dreams that nobody dreamt yet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.data.batches import Batches
from ladder.data.examples import Encoding, Example, encode_rows
from ladder.data.rows import Row
from ladder.errors import NotFound
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.adapters import rehearse
from ladder.models.intake import check_readable
from ladder.models.load import config_of, load_tokenizer
from ladder.models.scratch import architecture_config
from ladder.models.template import dated
from ladder.models.tokenizer import write_tokenizer
from ladder.planning.memory import Shape
from ladder.registry import Generation, Registry
from ladder.registry.lineage import Ancestry, decided_before, lineage_of
from ladder.run.context import run_folder
from ladder.run.dataset import (
    Lesson,
    build_batches,
    chosen_day,
    data_of,
    origin_of,
    own_probes,
    read_lesson,
    recall_probes,
    start_tokenizer,
    write_start,
)
from ladder.run.dreams import beginnings
from ladder.run.exam import check_asked
from ladder.run.fit import check_dreams, check_fits
from ladder.run.laws import check_laws
from ladder.sampling.dreams import Dream, answer_turn, dreams_wanted, read_dreams


def expected(
    wanted: Dreams,
    kind: str,
    begins: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerFast,
    replay: Sequence[Row],
    max_length: int,
    seed: int,
) -> list[tuple[tuple[int, ...], int]]:
    """Ids and the length of the opening of each dream that a manifest wants.

    Args:
        kind: what dreams begin with (``opening_kind``), and ``begins`` the ids.
        replay: what the ancestors left.
        max_length: of an example.
    """
    count, new = dreams_wanted(wanted), wanted.max_new_tokens
    if kind == "template":
        # A chat model asks and answers what it likes, as long as it may in both turns: rows say nothing of that.
        return stand_ins([], begins, count, 2 * new + len(answer_turn(tokenizer)), max_length, seed)
    rows = encode_rows(replay, tokenizer, Encoding(max_length, completion_only=False))
    return stand_ins(rows, begins, count, new, max_length, seed)


def stand_ins(
    rows: Sequence[Example], openings: Sequence[Sequence[int]], count: int, longest_new: int, max_length: int, seed: int
) -> list[tuple[tuple[int, ...], int]]:
    """Ids and the length of the opening of ``count`` dreams.

    Args:
        rows: the ancestors' rows, encoded; where there are none, dreams are taken to be as long as they may.
        openings: what dreams begin with; the n-th belongs to the n-th row where there are as many.
        longest_new: tokens that a dream adds to its opening, at most.
        max_length: of an example.
    """
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        place = int(generator.integers(len(openings)))
        opening = tuple(openings[place])
        if not rows:
            rest = [number % 251] * longest_new
        elif len(rows) == len(openings):
            rest = list(rows[place].ids[len(opening) :])
        else:
            rest = list(rows[int(generator.integers(len(rows)))].ids[1:])
        room = min(longest_new, max_length - len(opening))
        found.append(((*opening, *(rest[: max(1, room)] or [0])), len(opening)))
    return found


@dataclass(frozen=True)
class Outlook:
    """What is known of a run beforehand.

    Args:
        start: folder of the child's tokenizer; with the weights that it starts with, where the outlook is whole.
        shape: of the student; ``trained`` of its numbers, or of its adapter's, move.
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
    trained: int
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
    # What was decided is not refused any more: a plan of it says what it takes, whatever later versions check.
    undecided = registry is None or decided_before(request, registry) is None
    if undecided:
        _check_readable(request, {found[number].ref: folder for number, folder in folders.items()})
    lesson = read_lesson(request, list(by_digest.values()))
    check_laws(request, lesson)
    day = _noted_day(request, home) or chosen_day(request, folders.get(1))
    with tempfile.TemporaryDirectory(prefix="ladder-plan-") as temporary, dated(day):
        start = _start(request, lesson, folders.get(1), Path(temporary), whole=whole)
        if undecided:
            check_asked(request, start, own_probes(request))
        config, shape = _config(request, start, folders.get(1)), _shape(request, start, folders.get(1))
        lora = request.manifest.student.adapter
        trained = rehearse(config, lora) if lora else shape.parameters
        method = method_of(request.manifest)
        hosted = (method.teachers() | method.dreamers()) & folders.keys()
        models = (config, *(config_of(folders[number]) for number in sorted(hosted)))
        if undecided:
            probes = own_probes(request), recall_probes({one.ref: by_digest[one.digest] for one in ancestry.ancestors})
            check_fits(request, lesson, start, models, probes, Path(temporary) / "tokens")
        dreams, dreamt = _dreams(request, home, start, config, lesson, sorted(method.dreamers() & hosted))
        yield Outlook(
            request,
            start,
            shape,
            trained,
            ancestry,
            by_digest,
            {number: folders[number] for number in sorted(hosted)},
            frozenset(method.teachers() & hosted),
            build_batches(request, start, lesson, dreams, Path(temporary) / "tokens"),
            dreamt,
        )


def _check_readable(request: Request, teachers: Mapping[str, Path]) -> None:
    """See that what the child starts as, and its teachers, can read every id of their tokenizers."""
    model = request.manifest.student.model
    named = {"student.model": request.folder(model)} if model and not teachers else {}
    for where, folder in {**teachers, **named}.items():
        check_readable(folder, where)


def _noted_day(request: Request, home: Path) -> str | None:
    """The day that a run which began already writes."""
    notes = run_folder(request, home) / "run.json"
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
        write_tokenizer(folder / "start", start_tokenizer(request, lesson, parent))
        if parent is not None:
            config_of(parent).save_pretrained(folder / "start")
    return folder / "start"


def _shape(request: Request, start: Path, parent: Path | None) -> Shape:
    origin, architecture = origin_of(request, parent), request.manifest.student.architecture
    if origin is not None:
        return Shape.of_folder(origin)
    assert architecture is not None
    return Shape.of_architecture(architecture, len(load_tokenizer(start)))


def _config(request: Request, start: Path, parent: Path | None) -> PretrainedConfig:
    """Of the model that the student starts as."""
    origin, architecture = origin_of(request, parent), request.manifest.student.architecture
    if origin is not None:
        return config_of(origin)
    assert architecture is not None
    return architecture_config(architecture, len(load_tokenizer(start)))


def _dreams(
    request: Request, home: Path, start: Path, config: PretrainedConfig, lesson: Lesson, dreamers: Sequence[int]
) -> tuple[list[Dream], bool]:
    """The run's dreams where it has dreamt them, else stand-ins; and whether it has."""
    wanted, longest = request.manifest.stabilizers.dreams, data_of(request).max_length
    if not isinstance(wanted, Dreams) or not dreamers:
        return [], False
    written = run_folder(request, home) / "dreams.jsonl"
    if written.is_file():
        return read_dreams(written), True
    tokenizer = load_tokenizer(start)
    kind, begins = beginnings(request, wanted, tokenizer, lesson)
    check_dreams(config, start, wanted, kind, begins)
    guessed = expected(wanted, kind, begins, tokenizer, lesson.replay, longest, request.manifest.seeds.dreams)
    return [
        Dream(ids, opening, dreamers[number % len(dreamers)], "") for number, (ids, opening) in enumerate(guessed)
    ], False
