"""A whole distillation step: ladder against the ideal, the seed's literal loop, and TRL's trainers with one teacher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.ladder_step import LadderStep
from benchmarks.lesson import make_lesson
from benchmarks.options import Options
from benchmarks.peers.floor import floors
from benchmarks.peers.ideal import Ideal
from benchmarks.peers.seed_loop import SeedLoop
from benchmarks.school import LR, School, Shape, school
from benchmarks.step_ray import STEPS, through_actors
from benchmarks.timing import Spread, best_times, paired_rounds, ratio

SHAPES = (
    Shape(hidden=576, layers=6, heads=9, kv_heads=3, intermediate=1536, vocabulary=49152, rows=8, width=257),
    Shape(hidden=256, layers=4, heads=4, kv_heads=4, intermediate=704, vocabulary=8192, rows=8, width=257),
)
TINY = Shape(hidden=32, layers=1, heads=2, kv_heads=2, intermediate=32, vocabulary=512, rows=2, width=17)
IDEAL = "ideal: backbones, 5 products, AdamW"

Contenders = dict[str, Callable[[], object]]


def measure(options: Options) -> dict[str, Any]:
    notes = [
        "float32, all tokens trained, one batch over and over; ladder in one process: two Teacher.signal, Trainer.step",
        f"AdamW everywhere (torch's fused one in ideal and TRL), lr {LR:g}, clip 1 in ladder and TRL, EMA as named",
        "TRL: ONE teacher, no generation, no gradient checkpointing, no bf16, beta 0 (forward KL), lmbda 0 in GKD",
        "tokens a second: through the student's backbone; ratios are taken within each round",
    ]
    shapes = options.pick(SHAPES, (TINY,))
    rows = [row for shape in shapes for row in _rows(shape, options, notes)]
    return {"title": "A whole distillation step", "notes": notes, "rows": rows}


def _rows(shape: Shape, options: Options, notes: list[str]) -> list[dict[str, Any]]:
    with school(shape, options.threads) as place, ExitStack() as stack:
        seed, contenders = _contenders(place, options)
        divisors = dict.fromkeys(contenders, 1)
        if options.ray:
            name, run = stack.enter_context(through_actors(place))
            contenders[name], divisors[name] = run, STEPS
        timed = paired_rounds(contenders, options.rounds, warmup=2)
        notes.append(f"{shape.label}: the seed's loop took the route {seed.strategy} for every token of the batch")
        notes += [f"{shape.label}: {name} took {routes}" for name, routes in _routes(contenders).items()]
    seconds = {name: [value / divisors[name] for value in values] for name, values in timed.items()}
    return [_row(shape, name, seconds) for name in seconds]


def _row(shape: Shape, name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "size": shape.label,
        "step": name,
        "seconds": Spread.of(seconds[name]).to_dict(),
        "tokens a second": Spread.of([shape.rows * shape.width / value for value in seconds[name]]).to_dict(),
        "times ideal": ratio(seconds, name, IDEAL).to_dict(),
    }


def _contenders(place: School, options: Options) -> tuple[SeedLoop, Contenders]:
    frozen = tuple(place.model(number).requires_grad_(False) for number in (1, 2))
    ids_BT, shape = place.ids(), place.shape
    candidates = floors(make_lesson(shape.tokens, shape.hidden, shape.vocabulary))
    chunk = candidates[next(iter(best_times(candidates)))].chunk
    del candidates
    seed = SeedLoop(place.model(1), *frozen, ids_BT, LR)
    contenders: Contenders = {IDEAL: Ideal(place.model(1), frozen, ids_BT, LR, chunk)}
    for routing in ("agreement", "surprise"):
        contenders[f"ladder, {routing} routing, EMA"] = LadderStep(place, f"ladder-{routing}", routing=routing)
    contenders["ladder, agreement routing, no EMA"] = LadderStep(place, "ladder-no-ema", ema=False, routing="agreement")
    contenders["the seed's literal loop, EMA"] = seed
    return seed, contenders | (_trl(place, frozen[1], ids_BT) if options.trl else {})


def _routes(contenders: Contenders) -> dict[str, dict[str, int]]:
    """Tokens by route in the last step of ladder's own."""
    return {name: run.routes for name, run in contenders.items() if isinstance(run, LadderStep)}


def _trl(place: School, teacher: Any, ids_BT: Any) -> Contenders:
    from benchmarks.peers.trl_step import distillation_step, gkd_step

    made = {"TRL DistillationTrainer, 1 teacher": distillation_step, "TRL GKDTrainer, 1 teacher": gkd_step}
    return {
        name: make(place.model(1), teacher, place.tokenizer, ids_BT, LR, place.folder / make.__name__)
        for name, make in made.items()
    }
