"""Replay: the sample of its rows that a generation leaves behind, and reading what the ancestors left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ladder.data.rows import Row, read_rows


def replay_sample(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Up to ``size`` distinct gold rows, drawn without replacement and kept in their order."""
    gold = list({row.line(): row for row in rows if row.has_gold}.values())
    chosen = np.random.default_rng(seed).permutation(len(gold))[:size]
    return [gold[index] for index in sorted(chosen)]


def to_jsonl(rows: Sequence[Row]) -> str:
    """Rows as JSONL text."""
    return "".join(row.line() + "\n" for row in rows)


def read_left_behind(folder: Path) -> list[Row]:
    """The replay sample in a generation's folder; empty where it left none."""
    path = folder / "ladder" / "replay.jsonl"
    return read_rows(path) if path.is_file() and path.stat().st_size else []
