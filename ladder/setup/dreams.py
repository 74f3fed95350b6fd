"""Dreams before the first step: asked for block by block, and kept in one durable file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ladder.errors import DataError
from ladder.manifest import Request
from ladder.manifest.files import dream_prompts
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.sampling.dreams import (
    BLOCK,
    LESSON,
    Dream,
    Night,
    Sampling,
    answer_turn,
    block_seed,
    dreams_wanted,
    opening_kind,
    openings,
    read_dreams,
    to_jsonl,
)
from ladder.setup.dataset import Lesson, data_of
from ladder.system.files import save_text
from ladder.train.loss import taboo_ids

BLOCKS_FACTOR = 4
"""At most this many times the blocks that would do if no dream were dropped."""


Beginnings = tuple[str, list[list[int]]]
"""What dreams begin with: of which kind, and the ids."""
Ask = Callable[[Sequence[Night]], Sequence[Sequence[Dream]]]
"""Lets some dreamers dream at once, one block each."""


def write_dreams(
    request: Request,
    path: Path,
    teachers: Collection[int],
    ask: Ask,
    start: Path,
    tokenizer: PreTrainedTokenizerFast,
    begins: Beginnings | None,
    say: Callable[[str], object],
) -> list[Dream]:
    """The dreams of a run: read where they were written before, else written by those of the teachers that dream.

    Args:
        start: folder of the child's ``tokenizer``.
        begins: as ``beginnings``; None where they were written before.

    Raises:
        DataError: nearly all dreams were too short or too long.
    """
    wanted = request.manifest.stabilizers.dreams
    if not isinstance(wanted, Dreams):
        return []
    dreamers = sorted(method_of(request.manifest).dreamers() & set(teachers))
    if not path.is_file() and begins is not None:
        dreams = _dream(request, wanted, dreamers, ask, start, tokenizer, begins)
        save_text(path, to_jsonl(dreams))
        say(f"{len(dreams)} dreams written by teacher {' and '.join(map(str, dreamers))}")
    return read_dreams(path)


def _dream(
    request: Request,
    wanted: Dreams,
    dreamers: Sequence[int],
    ask: Ask,
    start: Path,
    tokenizer: PreTrainedTokenizerFast,
    begins: Beginnings,
) -> list[Dream]:
    seeds, (kind, prompts) = request.manifest.seeds, begins
    turn = answer_turn(tokenizer) if kind == "template" else []
    sampling = Sampling(wanted.temperature, wanted.max_new_tokens, taboo_ids(request.manifest, tokenizer))
    count, longest = dreams_wanted(wanted), data_of(request).max_length
    blocks = -(-count // BLOCK)
    dreams: list[Dream] = []
    for block in itertools.count():
        if len(dreams) >= count:
            return dreams[:count]
        if block >= BLOCKS_FACTOR * blocks:
            raise DataError(
                f"{len(dreams)} usable dreams among {block * BLOCK * len(dreamers)}, {count} wanted",
                where="stabilizers.dreams",
                remedy="lower min_new_tokens, max_new_tokens or count, raise data.max_length, or choose other prompts",
            )
        seed = [block_seed(request.digest, seeds.dreams, number, block) for number in dreamers]
        nights = [
            Night(number, start, prompts, sampling, own, turn) for number, own in zip(dreamers, seed, strict=True)
        ]
        dreams += [dream for written in ask(nights) for dream in written if _is_usable(dream, wanted, longest)]
    raise AssertionError("count() does not end")


def beginnings(request: Request, wanted: Dreams, tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> Beginnings:
    """What the dreams of a run begin with: of which kind, and the ids. Openings that leave no room for a dream within
    ``data.max_length`` are left out.

    Raises:
        DataError: there is nothing to begin with.
    """
    kind, file = opening_kind(wanted.prompts, tokenizer, lesson.replay), dream_prompts(request.manifest)
    rows, controls = lesson.new if kind == LESSON else lesson.replay, data_of(request).control_tokens
    found = openings(kind, tokenizer, rows, request.file(file) if file else None, controls)
    room = data_of(request).max_length - wanted.min_new_tokens
    if short := [ids for ids in found if len(ids) <= room]:
        return kind, short
    if wanted.prompts == "auto" and kind == "replay":
        return beginnings(request, wanted, tokenizer, replace(lesson, replay=()))
    raise DataError(
        f"no opening of {kind} dreams has at most {room} tokens",
        where="stabilizers.dreams.prompts",
        remedy="raise data.max_length, or choose other prompts",
    )


def _is_usable(dream: Dream, wanted: Dreams, longest: int) -> bool:
    return len(dream.ids) - dream.prompt >= wanted.min_new_tokens and len(dream.ids) <= longest
