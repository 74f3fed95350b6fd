"""What a student starts as, and what it will read: everything of it but its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.data import Row
from ladder.data.batches import Batches
from ladder.data.examples import Encoding, Example, encode_rows
from ladder.manifest import Dreams, Request
from ladder.methods import method_of
from ladder.models import (
    AdapterCost,
    architecture_config,
    check_readable,
    config_of,
    load_tokenizer,
    named_positions,
    rehearse,
    write_tokenizer,
)
from ladder.planning.memory import Shape
from ladder.registry.lineage import Ancestry
from ladder.sampling.dreams import BLOCK, Dream, answer_turn, dreams_wanted, read_dreams
from ladder.setup import (
    Beginnings,
    Dataset,
    Run,
    Writing,
    beginnings,
    build_batches,
    data_of,
    encode_dataset,
    hosted,
    made_of,
    origin_of,
    start_tokenizer,
    writing_of,
)
from ladder.teachers import KindSpec


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
class Start:
    """What the student starts as, and what it will read.

    Args:
        ancestry: whom the child comes from.
        folders: of all ancestors, by digest.
        tokenizer: the child's.
        config, shape: of the student.
        adapter: what that takes beside it; None where it learns with all weights.
        teachers: folders of the teachers that speak or dream and are models, by number.
        made: those that are no models.
        speakers: those of them that speak on more than their own dreams.
        rows: encoded, by source, without dreams.
        beginnings: what its dreams begin with; None where it has no dreams, or they are written already.
        dreamt: its dreams, where they are written already.
        writing: what it writes itself; None where that is nothing.
        ranks: processes that train it together; a step is split among them.
    """

    request: Request
    dataset: Dataset
    ancestry: Ancestry
    folders: Mapping[str, Path]
    tokenizer: PreTrainedTokenizerFast
    config: PretrainedConfig
    shape: Shape
    adapter: AdapterCost | None
    teachers: dict[int, Path]
    speakers: frozenset[int]
    rows: dict[str, list[Example]]
    beginnings: Beginnings | None
    dreamt: list[Dream]
    ranks: int = 1
    made: Mapping[int, KindSpec] = field(default_factory=dict)
    writing: Writing | None = None

    @property
    def trained(self) -> int:
        """Numbers that move."""
        return self.adapter.trained if self.adapter else self.shape.parameters

    @property
    def numbers(self) -> list[int]:
        """All teachers that speak or dream."""
        return sorted((*self.teachers, *self.made))

    @cached_property
    def batches(self) -> Batches:
        """Of the run; exact but for dreams that nobody dreamt yet and what the student will write, for which there are
        stand-ins."""
        return self.batches_with(self.dreamt or self._expected())

    def batches_with(self, dreams: list[Dream]) -> Batches:
        """Of the run, with these dreams, and stand-ins for what the student will write.

        Raises:
            ManifestError: as ``build_batches``.
        """
        rounds = self.writing.expected() if self.writing else {}
        return build_batches(self.request, self.tokenizer, self.rows, dreams, self.ranks, rounds)

    def _expected(self) -> list[Dream]:
        wanted, seed = self.request.manifest.stabilizers.dreams, self.request.manifest.seeds.dreams
        if self.beginnings is None or not isinstance(wanted, Dreams):
            return []
        longest, begins, usual = data_of(self.request).max_length, self.beginnings, self.usual_dreamers
        guessed = expected(wanted, begins.kind, begins.ids, self.tokenizer, self.dataset.replay, longest, seed)
        # Dreamers of their own write their lessons' by the block; several that share them all dream side by side.
        each, order = BLOCK if begins.dreamers else 1, list(islice(begins.order(usual), len(guessed)))
        return [Dream(ids, opening, order[n // each], "") for n, (ids, opening) in enumerate(guessed)]

    @property
    def usual_dreamers(self) -> list[int]:
        """Who dreams where lessons have no dreamers of their own, by number."""
        return _dreamers(self.request, self.teachers)

    @property
    def dreamers(self) -> dict[int, float]:
        """The share of the dreams that each teacher writes, by number; nothing where they are written already."""
        if self.beginnings is None:
            return {}
        counts = {number: len(ids) for number, ids in self.beginnings.by_dreamer(self.usual_dreamers).items()}
        return {number: count / sum(counts.values()) for number, count in counts.items()}


def start_of(run: Run, dataset: Dataset, tokens: Path, ranks: int = 1) -> Start:
    """Everything of the student but its weights; ``ranks`` as ``Start``."""
    request, manifest, parent = run.request, run.request.manifest, run.teachers.get(1)
    origin = origin_of(request, parent)
    if origin is not None and parent is None:
        check_readable(origin, "student.model")
    tokenizer = _tokenizer(run, dataset)
    if origin is not None:
        config, shape = config_of(origin), Shape.of_folder(origin)
    else:
        assert manifest.student.architecture is not None
        config = architecture_config(manifest.student.architecture, len(tokenizer))
        shape = Shape.of_architecture(manifest.student.architecture, len(tokenizer))
    adapter, asked = manifest.student.adapter, hosted(run)
    teachers = {number: run.teachers[number] for number in asked if number in run.teachers}
    # Where the tokenizer will lie when they are opened: beside what the student starts as.
    beside = run.start if parent is None or data_of(request).chat_template is not None else parent
    made = {n: made_of(request, one, beside, tokenizer) for n, one in run.made.items() if n in asked}
    wanted, dreamers = manifest.stabilizers.dreams, _dreamers(request, teachers)
    written, positions = run.dreams.is_file(), named_positions(config)
    dreaming = bool(dreamers) and not written
    return Start(
        request=request,
        dataset=dataset,
        ancestry=run.ancestry,
        folders=run.folders,
        tokenizer=tokenizer,
        config=config,
        shape=shape,
        adapter=rehearse(config, adapter) if adapter else None,
        teachers=teachers,
        speakers=frozenset(method_of(manifest).teachers() & {*asked}),
        rows=encode_dataset(request, tokenizer, positions, dataset, tokens),
        beginnings=beginnings(request, wanted, tokenizer, dataset, run.rehearsal.dreamers)
        if isinstance(wanted, Dreams) and dreaming
        else None,
        dreamt=read_dreams(run.dreams) if dreamers and written else [],
        ranks=ranks,
        made=made,
        writing=writing_of(request, tokenizer, dataset, positions),
    )


def _tokenizer(run: Run, dataset: Dataset) -> PreTrainedTokenizerFast:
    """The child's, as whoever loads its folder gets it."""
    if run.start.is_dir():
        return load_tokenizer(run.start)
    parent = run.teachers.get(1)
    tokenizer = start_tokenizer(run.request, dataset, parent)
    if parent is not None and data_of(run.request).chat_template is None:
        return tokenizer
    with tempfile.TemporaryDirectory(prefix="ladder-tokenizer-") as folder:
        write_tokenizer(Path(folder), tokenizer)
        return load_tokenizer(Path(folder))


def _dreamers(request: Request, teachers: Mapping[int, Path]) -> list[int]:
    return sorted(method_of(request.manifest).dreamers() & teachers.keys())
