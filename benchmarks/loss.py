"""The loss: ladder with two teachers against the floor of its products, its dense reference, and TRL with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.ladder_loss import (
    ROUTINGS,
    dense_bytes,
    dense_loss,
    disagreement,
    fused_loss,
    shares_of_routes,
)
from benchmarks.lesson import Dataset, make_lesson
from benchmarks.machine import available_memory
from benchmarks.options import Options
from benchmarks.peers.floor import floors
from benchmarks.peers.trl_loss import DIVERGENCES, TILES, trl_contender
from benchmarks.timing import Spread, best_times, paired_rounds, ratio

MAIN = ((576, 49152), (256, 32000))
"""Hidden size and vocabulary: SmolLM2's, and Llama 2's vocabulary on a narrow model."""
OTHERS = ((256, 8192), (576, 8192), (256, 49152), (256, 131072))
FEWER = 3
"""Rounds at most of the sizes that are not the main ones, and of contenders that take long."""
LADDER = "ladder, agreement routing"

Contenders = dict[str, Callable[[], object]]
Tried = dict[str, dict[str, float]]
"""Seconds of each way that was tried before the rounds, by contender."""


def measure(options: Options) -> dict[str, Any]:
    points = options.pick(MAIN if options.main else MAIN + OTHERS, ((32, 512),))
    tokens = options.pick(2048, 64)
    notes = [
        f"{tokens} tokens, float32, forward and backward with the gradients of hidden states and head",
        "floor: 5 products (4 with a frozen head), the fastest of all at once and chunks, as tried before the rounds",
        "TRL: ChunkedDivergenceFunction with ONE teacher; ladder: two teachers, routing and gold labels",
        "a ratio is taken within each round: median (smallest..largest)",
        "TRL and the dense reference have rounds of their own with ladder: the memory they turn over slows the floor",
    ]
    rows = [row for hidden, vocabulary in points for row in _point(tokens, hidden, vocabulary, options, notes)]
    return {"title": "Loss", "notes": notes, "rows": rows}


def _point(tokens: int, hidden: int, vocabulary: int, options: Options, notes: list[str]) -> list[dict[str, Any]]:
    """One size, as rows. What is left out for want of memory is said in the notes."""
    dataset = make_lesson(tokens, hidden, vocabulary)
    size = f"D {hidden}, V {vocabulary}"
    notes += [f"{size}: {name} routing takes {shares_of_routes(dataset, name)}" for name in ROUTINGS]
    notes += [
        f"{size}: {name}, ladder and dense differ by {disagreement(hidden, vocabulary, name)}" for name in ROUTINGS
    ]
    tried: Tried = {}
    near = _floors(dataset, tried) | _ladder(dataset)
    far = {LADDER: near[LADDER]} | (_trl(dataset, tried) if options.trl else {})
    if (needed := dense_bytes(tokens, vocabulary)) < available_memory():
        far["dense reference, agreement routing"] = _run(dataset, dense_loss, "agreement")
    else:
        notes.append(f"{size}: dense reference skipped, it may need {needed / 2**30:.1f} GiB")
    for name, times in tried.items():
        notes.append(f"{size}: {name}, tried: " + ", ".join(f"{how} {1e3 * t:.0f} ms" for how, t in times.items()))
    rounds = options.rounds if (hidden, vocabulary) in MAIN else min(options.rounds, FEWER)
    seconds = paired_rounds(near, rounds)
    rows = [_near_row(size, name, seconds) for name in near]
    seconds = paired_rounds(far, min(rounds, FEWER))
    return rows + [_row(size, name, seconds, {"ladder takes": (LADDER, name)}) for name in far if name != LADDER]


def _near_row(size: str, name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    floor = "floor, frozen head" if "frozen head" in name else "floor"
    return _row(size, name, seconds, {"times floor": (name, floor)}) | {"products": 4 if "frozen" in floor else 5}


def _row(size: str, name: str, seconds: dict[str, list[float]], ratios: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Milliseconds, and ratios of one contender to another."""
    row = {"size": size, "loss": name, "milliseconds": Spread.of([1e3 * value for value in seconds[name]]).to_dict()}
    found = {heading: ratio(seconds, *pair).to_dict() for heading, pair in ratios.items()}
    return {**row, "times floor": None, "ladder takes": None, **found, "rounds": len(seconds[name])}


def _floors(dataset: Dataset, tried: Tried) -> Contenders:
    """With a trained and with a frozen head, each in the fastest way."""
    chosen: Contenders = {}
    for name, frozen_head in (("floor", False), ("floor, frozen head", True)):
        ways = floors(dataset, frozen_head, limit=available_memory() // 2)
        tried[name] = best_times(ways)
        chosen[name] = ways[next(iter(tried[name]))]
    return chosen


def _ladder(dataset: Dataset) -> Contenders:
    runs: Contenders = {f"ladder, {name} routing": _run(dataset, fused_loss, name) for name in ROUTINGS}
    return runs | {"ladder, agreement routing, frozen head": _run(dataset, fused_loss, "agreement", frozen_head=True)}


def _run(dataset: Dataset, loss: Callable[..., Any], routing: str, frozen_head: bool = False) -> Callable[[], object]:
    weight_VD = dataset.weight_VD.detach() if frozen_head else dataset.weight_VD

    def run() -> object:
        value = loss(dataset.hidden_ND, weight_VD, dataset.teachers, dataset.labels_N, routing)
        return dataset.gradients(value, frozen_head)

    return run


def _trl(dataset: Dataset, tried: Tried) -> Contenders:
    """TRL with its own tiles, and with the fastest of a few others."""
    runs: Contenders = {}
    for name, beta in DIVERGENCES.items():
        ways = {f"tiles {rows} x {wide}": trl_contender(dataset, beta, (rows, wide)) for rows, wide in TILES[1:]}
        tried[f"TRL {name}"] = best_times(ways, repeats=1)
        best = next(iter(tried[f"TRL {name}"]))
        runs[f"TRL {name}, its own tiles"] = trl_contender(dataset, beta)
        runs[f"TRL {name}, {best}"] = ways[best]
    return runs
