"""The dreams of a run: what they begin with, and who writes how many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ladder.errors import DataError
from ladder.manifest import Dreams, Request, dream_prompts
from ladder.methods import method_of
from ladder.sampling.dreams import (
    BLOCK,
    DATASET,
    Dream,
    DreamBatch,
    Sampling,
    answer_turn,
    block_seed,
    dreams_wanted,
    opening_kind,
    openings,
    read_dreams,
    to_jsonl,
)
from ladder.setup.dataset import Dataset, data_of
from ladder.system.files import save_text
from ladder.train.loss import taboo_ids

BLOCKS_FACTOR = 4
"""At most this many times the blocks that would do if no dream were dropped."""

Beginnings = tuple[str, list[list[int]]]
"""What dreams begin with: of which kind, and the ids."""
Ask = Callable[[Sequence[DreamBatch]], Sequence[Sequence[Dream]]]
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
    at_once: int = 1,
) -> list[Dream]:
    """The dreams of a run: read where they were written before, else written by those of the teachers that dream.

    Args:
        start: folder of the child's ``tokenizer``.
        begins: as ``beginnings``; None where they were written before.
        at_once: blocks that a dreamer may be asked for at the same time; which dreams there are does not depend on it.

    Raises:
        DataError: nearly all dreams were too short or too long.
    """
    wanted = request.manifest.stabilizers.dreams
    if not isinstance(wanted, Dreams):
        return []
    dreamers = sorted(method_of(request.manifest).dreamers() & set(teachers))
    if not path.is_file() and begins is not None:
        dreams = _dream(request, wanted, dreamers, ask, start, tokenizer, begins, at_once)
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
    at_once: int,
) -> list[Dream]:
    seeds, (kind, prompts) = request.manifest.seeds, begins
    turn = answer_turn(tokenizer) if kind == "template" else []
    sampling = Sampling(wanted.temperature, wanted.max_new_tokens, taboo_ids(request.manifest, tokenizer))
    count, longest = dreams_wanted(wanted), data_of(request).max_length
    blocks = -(-count // BLOCK)
    dreams: list[Dream] = []
    block = 0
    while len(dreams) < count:
        if block >= BLOCKS_FACTOR * blocks:
            raise DataError(
                f"{len(dreams)} usable dreams among {block * BLOCK * len(dreamers)}, {count} wanted",
                where="stabilizers.dreams",
                remedy="lower min_new_tokens, max_new_tokens or count, raise data.max_length, or choose other prompts",
            )
        # No more than would do if none were dropped: what is left over would have been written for nothing.
        missing = -(-(count - len(dreams)) // (BLOCK * len(dreamers)))
        wave = range(block, min(block + min(at_once, missing), BLOCKS_FACTOR * blocks))
        dream_batches = [
            DreamBatch(number, start, prompts, sampling, block_seed(request.digest, seeds.dreams, number, place), turn)
            for place in wave
            for number in dreamers
        ]
        dreams += [dream for written in ask(dream_batches) for dream in written if _is_usable(dream, wanted, longest)]
        block = wave.stop
    return dreams[:count]


def beginnings(request: Request, wanted: Dreams, tokenizer: PreTrainedTokenizerFast, dataset: Dataset) -> Beginnings:
    """What the dreams of a run begin with: of which kind, and the ids. Openings that leave no room for a dream within
    ``data.max_length`` are left out.

    Raises:
        DataError: there is nothing to begin with.
    """
    kind, file = opening_kind(wanted.prompts, tokenizer, dataset.replay), dream_prompts(request.manifest)
    rows, controls = dataset.new if kind == DATASET else dataset.replay, data_of(request).control_tokens
    found = openings(kind, tokenizer, rows, request.file(file) if file else None, controls)
    room = data_of(request).max_length - wanted.min_new_tokens
    if short := [ids for ids in found if len(ids) <= room]:
        return kind, short
    if wanted.prompts == "auto" and kind == "replay":
        return beginnings(request, wanted, tokenizer, replace(dataset, replay=()))
    raise DataError(
        f"no opening of {kind} dreams has at most {room} tokens",
        where="stabilizers.dreams.prompts",
        remedy="raise data.max_length, or choose other prompts",
    )


def _is_usable(dream: Dream, wanted: Dreams, longest: int) -> bool:
    return len(dream.ids) - dream.prompt >= wanted.min_new_tokens and len(dream.ids) <= longest
