"""The dreams of a run: what they begin with, and who writes how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from ladder.errors import DataError
from ladder.laws.completions import Written, faults
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
from ladder.setup.rehearsal import PARENT
from ladder.system.files import save_text
from ladder.train.loss import taboo_ids

BLOCKS_FACTOR = 4
"""At most this many times the blocks that would do if no dream were dropped."""


class Beginnings(NamedTuple):
    """What dreams begin with: of which kind, the ids, and where lessons have dreamers of their own, whose each is."""

    kind: str
    ids: list[list[int]]
    dreamers: tuple[int, ...] = ()

    def by_dreamer(self, usual: Collection[int]) -> dict[int, list[list[int]]]:
        """What each dreamer begins with, by its number; all begin with everything where nothing is anybody's own."""
        if not self.dreamers:
            return dict.fromkeys(sorted(usual), self.ids)
        return {
            number: [ids for ids, whose in zip(self.ids, self.dreamers, strict=True) if whose == number]
            for number in sorted(set(self.dreamers))
        }

    def order(self, usual: Collection[int]) -> Iterator[int]:
        """Who dreams the next block, without end: in turns, so that each has its share of the openings at any time."""
        shares = {number: len(ids) for number, ids in self.by_dreamer(usual).items()}
        given = dict.fromkeys(shares, 0)
        while True:
            # Whoever is furthest behind: the next block comes to it soonest (Webster's method of apportionment).
            chosen = max(shares, key=lambda number: (shares[number] / (2 * given[number] + 1), -number))
            given[chosen] += 1
            yield chosen


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
    if not path.is_file() and begins is not None:
        usual = method_of(request.manifest).dreamers() & set(teachers)
        dreams = _dream(request, wanted, usual, ask, start, tokenizer, begins, at_once)
        save_text(path, to_jsonl(dreams))
        written = Counter(dream.teacher for dream in dreams)
        each = [f"{count} by {number}" for number, count in sorted(written.items())] if begins.dreamers else []
        by = " and ".join(map(str, sorted(begins.by_dreamer(usual))))
        say(f"{len(dreams)} dreams written by teacher {by}" + (f": {', '.join(each)}" if len(each) > 1 else ""))
    return read_dreams(path)


def _dream(
    request: Request,
    wanted: Dreams,
    usual: Collection[int],
    ask: Ask,
    start: Path,
    tokenizer: PreTrainedTokenizerFast,
    begins: Beginnings,
    at_once: int,
) -> list[Dream]:
    seed, own = request.manifest.seeds.dreams, begins.by_dreamer(usual)
    turn = answer_turn(tokenizer) if begins.kind == "template" else []
    sampling = Sampling(wanted.temperature, wanted.max_new_tokens, taboo_ids(request.manifest, tokenizer))
    count, keep = dreams_wanted(wanted), _keeping(request)
    most, order, asked = BLOCKS_FACTOR * -(-count // BLOCK), begins.order(usual), Counter[int]()
    dreams: list[Dream] = []
    rounds = 0
    while len(dreams) < count:
        if rounds >= most:
            raise DataError(
                f"{len(dreams)} usable dreams among {asked.total() * BLOCK}, {count} wanted",
                where="stabilizers.dreams",
                remedy="lower min_new_tokens, max_new_tokens or count, raise data.max_length, or choose other prompts",
            )
        # A round is as many blocks as there are dreamers. No more than would do if none were dropped: what is left over
        # would have been written for nothing.
        missing = -(-(count - len(dreams)) // (BLOCK * len(own)))
        taken = min(at_once, missing, most - rounds)
        dream_batches = []
        for number in islice(order, taken * len(own)):
            own_seed = block_seed(request.digest, seed, number, asked[number])
            dream_batches.append(DreamBatch(number, start, own[number], sampling, own_seed, turn))
            asked[number] += 1
        dreams += [dream for written in ask(dream_batches) for dream in written if keep(dream)]
        rounds += taken
    return dreams[:count]


def beginnings(
    request: Request,
    wanted: Dreams,
    tokenizer: PreTrainedTokenizerFast,
    dataset: Dataset,
    dreamers: Sequence[int] = (),
) -> Beginnings:
    """What the dreams of a run begin with: of which kind, and the ids. Openings that leave no room for a dream within
    ``data.max_length`` are left out.

    Args:
        dreamers: of each ancestor's lesson, oldest first, where lessons have dreamers of their own.

    Raises:
        DataError: there is nothing to begin with.
    """
    kind, file = opening_kind(wanted.prompts, tokenizer, dataset.replay), dream_prompts(request.manifest)
    rows, controls = dataset.new if kind == DATASET else dataset.replay, data_of(request).control_tokens
    found = openings(kind, tokenizer, rows, request.file(file) if file else None, controls)
    room = data_of(request).max_length - wanted.min_new_tokens
    fits = [place for place, ids in enumerate(found) if 0 < len(ids) <= room]
    if fits:
        of_lessons = kind == "replay" and set(dreamers) not in (set(), {PARENT})
        whose = [dreamers[lesson] for lesson in dataset.lessons] if of_lessons else []
        return Beginnings(kind, [found[place] for place in fits], tuple(whose[place] for place in fits if whose))
    if wanted.prompts == "auto" and kind == "replay":
        return beginnings(request, wanted, tokenizer, replace(dataset, replay=(), lessons=()))
    raise DataError(
        f"no opening of {kind} dreams has at most {room} tokens",
        where="stabilizers.dreams.prompts",
        remedy="raise data.max_length, or choose other prompts",
    )


def _keeping(request: Request) -> Callable[[Dream], bool]:
    """Whether a dream is learned: by its length, and those of a steered teacher by how they are written."""
    wanted, longest = request.manifest.stabilizers.dreams, data_of(request).max_length
    assert isinstance(wanted, Dreams)
    least, steer, steered = wanted.min_new_tokens, request.manifest.steering, method_of(request.manifest).steered

    def keep(dream: Dream) -> bool:
        if not (len(dream.ids) - dream.prompt >= least and len(dream.ids) <= longest):
            return False
        if steer is None or dream.teacher not in steered:
            return True
        return not faults(Written(dream.text, inf if dream.tail is None else dream.tail), steer.keep)

    return keep
