"""The loss with one to four teachers, against the floor of its products, and its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.ladder_loss import fused_loss
from benchmarks.lesson import Dataset, make_lesson
from benchmarks.machine import available_memory
from benchmarks.memory import MIB
from benchmarks.options import Options
from benchmarks.peers.floor import floors
from benchmarks.process import in_subprocess
from benchmarks.timing import Spread, best_times, paired_rounds, ratio

SIZE = (1024, 576, 49152)
"""Tokens, hidden size and vocabulary, these of SmolLM2."""
COUNTS = (1, 2, 3, 4)
MEMORY = (1024, 4096)
"""Tokens of which the loss's memory is compared, with the most teachers."""


def measure(options: Options) -> dict[str, Any]:
    tokens, hidden, vocabulary = options.pick(SIZE, (64, 32, 512))
    notes = [
        f"{tokens} tokens, D {hidden}, V {vocabulary}, float32, forward and backward, routing by agreement",
        "floor: K + 3 products into buffers that are there, all at once or in chunks, whichever was faster before",
        "a ratio is taken within each round: median (smallest..largest)",
        f"memory: rise above the inputs less the gradients, MiB, {COUNTS[-1]} teachers",
    ]
    rows = [_row(tokens, hidden, vocabulary, teachers, options) for teachers in COUNTS]
    for count in options.pick(MEMORY, (64,)):
        rows[-1][f"MiB, N {count}"] = _memory(count, hidden, vocabulary, options)
    return {"title": "Teachers of the loss", "notes": notes, "rows": rows}


def _row(tokens: int, hidden: int, vocabulary: int, teachers: int, options: Options) -> dict[str, Any]:
    dataset = make_lesson(tokens, hidden, vocabulary, teachers=teachers)
    ways = floors(dataset, limit=available_memory() // 2)
    contenders: dict[str, Callable[[], object]] = {
        "floor": ways[next(iter(best_times(ways, repeats=1)))],
        "ladder": lambda: _once(dataset),
    }
    seconds = paired_rounds(contenders, options.rounds)
    times = {name: Spread.of([1e3 * value for value in seconds[name]]).to_dict() for name in contenders}
    return {
        "teachers": teachers,
        "products": teachers + 3,
        "floor, ms": times["floor"],
        "ladder, ms": times["ladder"],
        "times floor": ratio(seconds, "ladder", "floor").to_dict(),
    }


def _once(dataset: Dataset) -> object:
    loss = fused_loss(dataset.hidden_ND, dataset.weight_VD, dataset.teachers, dataset.labels_N)
    return dataset.gradients(loss)


def _memory(tokens: int, hidden: int, vocabulary: int, options: Options) -> int:
    task = {"name": "ladder", "tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "teachers": COUNTS[-1]}
    rise = in_subprocess("benchmarks.memory", task | {"threads": options.threads}, quick=options.quick)["bytes"]
    return round((rise - 4 * hidden * (vocabulary + tokens)) / MIB)
