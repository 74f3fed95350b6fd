"""What checkpoints cost: writing one durably, beside the steps that lie between two of them."""

from __future__ import annotations

from typing import Any

from benchmarks.ladder_step import LadderStep
from benchmarks.options import Options
from benchmarks.school import Shape, school
from benchmarks.step import SHAPES, TINY
from benchmarks.timing import Spread, paired_rounds, ratio
from ladder.manifest.schema_runtime import Runtime

EMBEDDED = Shape(hidden=128, layers=4, heads=4, kv_heads=4, intermediate=352, vocabulary=1024, rows=16, width=97)
"""As large as the models of ``manifests/luna`` and their packed batches."""
STEP, SAVED = "a step", "a checkpoint"


def measure(options: Options) -> dict[str, Any]:
    every = Runtime().checkpoint_every
    notes = [
        f"a checkpoint: weights, EMA, optimiser and random state, durably; share: of one every {every} steps",
        "two teachers, all weights trained, float32, in one process",
    ]
    shapes = options.pick((EMBEDDED, SHAPES[0]), (TINY,))
    return {"title": "What checkpoints cost", "notes": notes, "rows": [_row(shape, options, every) for shape in shapes]}


def _row(shape: Shape, options: Options, every: int) -> dict[str, Any]:
    with school(shape, options.threads) as place:
        step = LadderStep(place, "checkpoint", routing="agreement")
        timed = paired_rounds({STEP: step, SAVED: step.trainer.checkpoint}, options.rounds, warmup=2)
        size = max(path.stat().st_size for path in place.folder.rglob("tensors.safetensors"))
    share = Spread.of([value / every for value in _ratios(timed)])
    return {
        "size": shape.label,
        "MiB": size / 2**20,
        "step, s": Spread.of(timed[STEP]).to_dict(),
        "checkpoint, s": Spread.of(timed[SAVED]).to_dict(),
        "checkpoint / step": ratio(timed, SAVED, STEP).to_dict(),
        "share of the time, %": {name: 100 * value for name, value in share.to_dict().items()},
    }


def _ratios(timed: dict[str, list[float]]) -> list[float]:
    return [saved / step for saved, step in zip(timed[SAVED], timed[STEP], strict=True)]
