"""A second epoch, in which what the teachers said is known: against plain fine-tuning with two more head products."""

from __future__ import annotations

from typing import Any

from benchmarks.ladder_step import LadderStep
from benchmarks.options import Options
from benchmarks.peers.fine_tuning import FineTuning
from benchmarks.school import FINE_TUNING, LR, School, school
from benchmarks.step import SHAPES, TINY, Contenders
from benchmarks.timing import Spread, paired_rounds, ratio
from ladder.teachers.cache import CacheSettings
from ladder.teachers.wire import Truncation

AGAINST = "plain fine-tuning + 2 head products"
LIMIT = 2**32
"""Bytes that a teacher's signals may take."""
TOP_K = 64


def measure(options: Options) -> dict[str, Any]:
    notes = [
        "the same batch in every step, so that from the second step on every signal comes from the cache",
        "plain fine-tuning: whole logits, cross-entropy, clip 1, torch's fused AdamW, no EMA",
        "ladder: agreement routing, two teachers, without EMA unless it is named",
    ]
    rows = [row for shape in options.pick(SHAPES, (TINY,)) for row in _rows(shape, options, notes)]
    return {"title": "A second epoch with cached signals", "notes": notes, "rows": rows}


def _rows(shape: Any, options: Options, notes: list[str]) -> list[dict[str, Any]]:
    with school(shape, options.threads) as place:
        contenders = _contenders(place) | _cached(place)
        seconds = paired_rounds(contenders, options.rounds, warmup=2)
    notes += [f"{shape.label}: {name}: {said}" for name, said in _statistics(contenders).items()]
    return [
        {
            "size": shape.label,
            "step": name,
            "seconds": Spread.of(seconds[name]).to_dict(),
            "times fine-tuning + 2 products": ratio(seconds, name, AGAINST).to_dict(),
        }
        for name in seconds
    ]


def _contenders(place: School) -> Contenders:
    heads = tuple(place.model(number).get_output_embeddings().weight.detach() for number in (1, 2))
    return {
        "plain fine-tuning": FineTuning(place.model(1), place.ids(), LR),
        AGAINST: FineTuning(place.model(1), place.ids(), LR, heads),
        "ladder, supervised_fine_tuning": LadderStep(place, "tuned", method=FINE_TUNING, ema=False),
        "ladder, teachers read (first epoch)": LadderStep(place, "read", ema=False, routing="agreement"),
    }


def _cached(place: School) -> Contenders:
    """``TeacherSpec.cache`` in memory and on disk; with top-k the teachers' heads are not needed either."""
    memory = CacheSettings("memory", LIMIT)
    disk = CacheSettings("disk", LIMIT, place.folder / "signals")
    truncation = Truncation(TOP_K, 2.0, place.shape.vocabulary)
    top_k = {"kind": "topk", "truncation": truncation, "cache": memory}
    wire = {"wire": "topk", "top_k": TOP_K}
    return {
        "ladder, cached in memory": LadderStep(place, "memory", {"cache": memory}, ema=False, routing="agreement"),
        "ladder, cached on disk": LadderStep(place, "disk", {"cache": disk}, ema=False, routing="agreement"),
        "ladder, cached in memory, EMA": LadderStep(place, "memory-ema", {"cache": memory}, routing="agreement"),
        f"ladder, top-{TOP_K} cached in memory": LadderStep(
            place, "topk", top_k, ema=False, routing="agreement", runtime=wire
        ),
    }


def _statistics(contenders: Contenders) -> dict[str, str]:
    """What each cache did, as proof that it answered."""
    steps = {name: run for name, run in contenders.items() if isinstance(run, LadderStep) and "cached" in name}
    return {name: str(next(iter(run.teachers.values())).cache_statistics) for name, run in steps.items()}
