"""Replay: the sample of its rows that a generation leaves behind, and finding what the ancestors left.

Left as ``rows``, the sample travels with the generation. Left as ``hashed``, only the digests of its rows do:
descendants look the rows up in files of their own, and one that was deleted there is not replayed any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ladder.data.digests import digest_lines, read_digests
from ladder.data.rows import Row, read_rows

SAMPLE = "replay.jsonl"
HASHED = "replay.sha256"


@dataclass(frozen=True)
class Left:
    """What a generation left to replay.

    Args:
        rows: with their places for messages.
        missing: how many rows were left as digests and are not at hand.
    """

    rows: tuple[Row, ...] = ()
    missing: int = 0


def replay_sample(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Up to ``size`` distinct gold rows, drawn without replacement and kept in their order."""
    gold = list({row.line(): row for row in rows if row.has_gold}.values())
    chosen = np.random.default_rng(seed).permutation(len(gold))[:size]
    return [gold[index] for index in sorted(chosen)]


def leave_behind(sample: Sequence[Row], how: str) -> dict[str, str]:
    """The file that holds a sample, as its name and its text; none for ``none``.

    Args:
        how: ``rows``, ``hashed`` or ``none``, as ``stabilizers.replay``.
    """
    texts = {"rows": (SAMPLE, to_jsonl(sample)), "hashed": (HASHED, digest_lines(row.digest for row in sample))}
    return dict([texts[how]]) if how in texts else {}


def to_jsonl(rows: Sequence[Row]) -> str:
    """Rows as JSONL text."""
    return "".join(row.line() + "\n" for row in rows)


def read_left_behind(folder: Path, at_hand: Mapping[str, Row] | None = None) -> Left:
    """The replay sample in a generation's folder; empty where it left none.

    Args:
        at_hand: rows by digest, in which those are found that were left as digests.
    """
    path, at_hand = folder / "ladder" / SAMPLE, at_hand or {}
    rows = read_rows(path) if path.is_file() and path.stat().st_size else []
    hashed = sorted(read_digests(folder / "ladder" / HASHED))
    found = [at_hand[digest] for digest in hashed if digest in at_hand]
    return Left((*rows, *found), len(hashed) - len(found))
