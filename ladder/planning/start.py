"""What a student starts as, and what it will read: everything of it but its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.data.batches import Batches
from ladder.data.examples import Example
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.adapters import rehearse
from ladder.models.intake import check_readable
from ladder.models.load import config_of, load_tokenizer
from ladder.models.preflight import named_positions
from ladder.models.scratch import architecture_config
from ladder.models.tokenizer import write_tokenizer
from ladder.planning.memory import Shape
from ladder.planning.stand_ins import expected
from ladder.registry.lineage import Ancestry
from ladder.sampling.dreams import Dream, read_dreams
from ladder.setup.context import Run, hosted
from ladder.setup.dataset import (
    Lesson,
    build_batches,
    data_of,
    encode_lesson,
    origin_of,
    start_tokenizer,
)
from ladder.setup.dreams import Beginnings, beginnings


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


def start_of(run: Run, lesson: Lesson, tokens: Path) -> Start:
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
        config = architecture_config(manifest.student.architecture, len(tokenizer))
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
