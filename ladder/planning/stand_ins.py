"""A run before it is run: its ancestors' folders and its batches, with stand-ins for dreams that nobody dreamt yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from ladder.data.examples import Encoding, Example, encode_rows
from ladder.data.rows import Row
from ladder.manifest.schema import Dreams
from ladder.sampling.dreams import answer_turn, dreams_wanted


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
