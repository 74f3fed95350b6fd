"""Dreams before the first step: teacher actors write them block by block, and one durable file keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from ladder.actors.session import fetch
from ladder.actors.teacher import TeacherHandle
from ladder.data.dreams import BLOCK, Dream, Sampling, answer_turn, block_seed, openings, read_dreams, to_jsonl
from ladder.data.rows import Row
from ladder.errors import DataError
from ladder.lesson import data_of
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.load import load_tokenizer
from ladder.models.save import save_text
from ladder.report.console import Console
from ladder.train.loss import taboo_ids

BLOCKS_FACTOR = 4
"""At most this many times the blocks that would do if no dream were dropped."""


def write_dreams(
    request: Request,
    path: Path,
    teachers: Mapping[int, TeacherHandle],
    start: Path,
    replay: Sequence[Row],
    console: Console,
) -> list[Dream]:
    """The dreams of a run: read where they were written before, else written by their teachers.

    Raises:
        DataError: there is nothing to begin with, or nearly all dreams were too short or too long.
    """
    wanted = request.manifest.stabilizers.dreams
    if not isinstance(wanted, Dreams):
        return []
    if not path.is_file():
        dreamers = sorted(method_of(request.manifest).dreamers() & teachers.keys())
        dreams = _dream(request, wanted, {number: teachers[number] for number in dreamers}, start, replay)
        save_text(path, to_jsonl(dreams))
        console.say(f"{len(dreams)} dreams written by teacher {' and '.join(map(str, dreamers))}")
    return read_dreams(path)


def _dream(
    request: Request, wanted: Dreams, teachers: Mapping[int, TeacherHandle], start: Path, replay: Sequence[Row]
) -> list[Dream]:
    tokenizer = load_tokenizer(start)
    kind = wanted.prompts
    file = None if kind in ("start", "template", "replay") else request.file(kind)
    prompts = openings(kind, tokenizer, replay, file)
    turn = answer_turn(tokenizer) if kind == "template" else []
    sampling = Sampling(wanted.temperature, wanted.max_new_tokens, taboo_ids(request.manifest, tokenizer))
    blocks, longest = -(-wanted.count // BLOCK), data_of(request).max_length
    dreams: list[Dream] = []
    for block in count():
        if len(dreams) >= wanted.count:
            return dreams[: wanted.count]
        if block >= BLOCKS_FACTOR * blocks:
            raise DataError(
                f"{len(dreams)} usable dreams among {block * BLOCK * len(teachers)}, {wanted.count} wanted",
                where="stabilizers.dreams",
                remedy="lower min_new_tokens, max_new_tokens or count, raise data.max_length, or choose other prompts",
            )
        said = [
            teacher.dream(start, prompts, sampling, _seed(request, number, block), turn)
            for number, teacher in teachers.items()
        ]
        written = [dream for dreams_of_one in fetch(said) for dream in dreams_of_one]
        dreams += [dream for dream in written if _is_usable(dream, wanted, longest)]
    raise AssertionError("count() does not end")


def _is_usable(dream: Dream, wanted: Dreams, longest: int) -> bool:
    return len(dream.ids) - dream.prompt >= wanted.min_new_tokens and len(dream.ids) <= longest


def _seed(request: Request, teacher: int, block: int) -> int:
    return block_seed(request.digest, request.manifest.seeds.dreams, teacher, block)
