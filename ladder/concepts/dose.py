"""How far a concept is pushed: the multiple of its vector at which a steered model lies 1 nat from itself (iso-KL).

The steered model continues prompts greedily, both models score what was written, and the distance is the 95th
percentile, over all tokens of all prompts, of KL(steered || base). It grows as the square of a small dose and stops
growing at large ones, so the search is one in logarithms of both. 1 nat is necessary and not sufficient: whether a
model at that dose still lives is another question (``alive``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, isfinite, log, sqrt

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.concepts.layers import residuals
from ladder.concepts.steering import Push, steered
from ladder.concepts.vectors import Vectors
from ladder.errors import ModelError
from ladder.models import continue_rows

TARGET, TOLERANCE, STEPS = 1.0, 0.05, 12
LOW, HIGH = 0.01, 16.0
"""Ends of the search for a dose, in median norms of the residual that is pushed: models differ a hundredfold in it."""
PERCENTILE = 0.95
TOKENS = 20
"""That are written after each prompt."""
ALIVE = 0.75
"""Least mass on the allowed answers of forced choices at which a steered model still answers."""


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Args:
        amount: what was searched for.
        reached: the measure there.
        steps: how often was measured.
        warning: why that is not the target; empty where it is.
    """

    amount: float
    reached: float
    steps: int
    warning: str = ""


def search(
    measure: Callable[[float], float],
    target: float = TARGET,
    low: float = LOW,
    high: float = HIGH,
    tolerance: float = TOLERANCE,
    steps: int = STEPS,
) -> Found:
    """The amount at which a growing measure reaches its target.

    From the middle of the bracket the amount doubles or halves until the target lies between two of them; then regula
    falsi in the logarithms of both, and bisection where it would leave the bracket or moved the same end twice.

    Returns:
        An amount with ``|measure - target| < tolerance``; else the end of [low, high] that is nearest, or the best
        that was seen in so many steps, with a warning.

    Raises:
        ModelError: the measure is not finite.
    """
    seen: dict[float, float] = {}

    def at(amount: float) -> float:
        seen[amount] = measure(amount)
        if not isfinite(seen[amount]):
            remedy = "fit the vectors again, or steer behind other layers"
            raise ModelError(f"a distance of {seen[amount]} at {amount:g}", where="dose", remedy=remedy)
        return seen[amount]

    def done() -> bool:
        return abs(min(seen.values(), key=lambda value: abs(value - target)) - target) < tolerance

    amount = sqrt(low * high)
    rising = at(amount) < target
    while not done() and len(seen) < steps and rising == (seen[amount] < target):
        if amount == (high if rising else low):
            end = f"the distance is {seen[amount]:.3g} nats at {amount:g}, the end of the search, and not {target:g}"
            return Found(amount, seen[amount], len(seen), end)
        amount = min(high, 2 * amount) if rising else max(low, amount / 2)
        at(amount)
    _narrow(at, seen, target, steps, done)
    best = min(seen, key=lambda each: abs(seen[each] - target))
    short = "" if done() else f"the distance is {seen[best]:.3g} nats after {len(seen)} steps, and not {target:g}"
    return Found(best, seen[best], len(seen), short)


def _narrow(
    at: Callable[[float], float], seen: dict[float, float], target: float, steps: int, done: Callable[[], bool]
) -> None:
    """Measure between the largest amount below the target and the smallest above it."""
    moved = ""
    while not done() and len(seen) < steps:
        below = max((each for each in seen if seen[each] < target), default=None)
        above = min((each for each in seen if seen[each] >= target), default=None)
        if below is None or above is None or below >= above:
            return
        middle = exp((log(below) + log(above)) / 2)
        guess = _falsi(below, above, seen[below], seen[above], target) if moved != "twice" else middle
        end = "below" if at(guess) < target else "above"
        moved = "twice" if moved in (end, "twice") and moved != "twice" else end


def _falsi(below: float, above: float, lower: float, upper: float, target: float) -> float:
    """Where the line through both ends, in logarithms of amount and measure, meets the target; their middle where it
    does not inside of the bracket."""
    x, y = log(below), log(above)
    f, g = (log(max(value, 1e-12) / target) for value in (lower, upper))
    share = -f / (g - f) if g > f else 0.5
    return exp(x + (y - x) * (share if 0.02 < share < 0.98 else 0.5))


def kl(steered_NV: Tensor, base_NV: Tensor) -> Tensor:
    """KL(steered || base) in nats of each of N positions, from logits [N, V]; in float32 at least.

    sum_v p_v (ln p_v - ln q_v)
    """
    log_p_NV, log_q_NV = (
        logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)).log_softmax(-1)
        for logits_NV in (steered_NV, base_NV)
    )
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1)


@torch.no_grad()
def distances(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vectors: Vectors,
    pushes: Sequence[Push],
    layers: Sequence[int],
    *,
    pad: int,
    ends: Sequence[int],
    tokens: int = TOKENS,
) -> Tensor:
    """KL(steered || base) in nats at every token that the steered model writes greedily after its prompts, [N] float32.

    Args:
        prompts: token ids of each, one or more.
        ends: ids that end a text; what comes after is not counted.
    """
    parts = []
    for ids in prompts:
        with steered(model, vectors, pushes, layers):
            (written,) = continue_rows(model, [ids], pad=pad, ends=ends, max_new_tokens=tokens, do_sample=False)
            text_1T = torch.tensor([[*ids, *_until(written, ends)]], device=model.device)
            told_NV = _predicting(model, text_1T, len(ids))
        parts.append(kl(told_NV, _predicting(model, text_1T, len(ids))).cpu())
    return torch.cat(parts)


def _predicting(model: PreTrainedModel, text_1T: Tensor, prompt: int) -> Tensor:
    """Logits [N, V] at the positions that predict what stands behind the prompt."""
    return model(input_ids=text_1T, use_cache=False).logits[0, prompt - 1 : -1]


def _until(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    length = next((place for place, each in enumerate(ids, 1) if each in ends), len(ids))
    return list(ids[:length])


def percentile(distances_N: Tensor) -> float:
    """The 95th percentile, linear between neighbours."""
    return float(torch.quantile(distances_N.double(), PERCENTILE))


def iso_kl(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    vectors: Vectors,
    concept: str,
    layers: Sequence[int],
    *,
    pad: int,
    ends: Sequence[int],
) -> Found:
    """The dose of a concept: c with a 95th percentile of 1 nat. Deterministic, because what is written is greedy.

    Raises:
        ModelError: what leaves a layer, or a distance, is not finite.
    """
    at = partial(distances, model, prompts, vectors, layers=layers, pad=pad, ends=ends)
    norm = median_norm(model, prompts, layers)
    return search(lambda by: percentile(at([Push(concept, by)])), low=LOW * norm, high=HIGH * norm)


@torch.no_grad()
def median_norm(model: PreTrainedModel, prompts: Sequence[Sequence[int]], layers: Sequence[int]) -> float:
    """The median, over the tokens of prompts and some layers, of the length of what leaves a layer. The mean would be
    that of the first token, which is hundreds of times longer in many models.

    Raises:
        ModelError: it is not finite, or 0.
    """
    norms = []
    with residuals(model, layers) as left:
        for ids in prompts:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
            norms += [left[layer].float().norm(dim=-1).flatten().cpu() for layer in layers]
    found = float(torch.cat(norms).median())
    if not isfinite(found) or found <= 0:
        remedy = "see whether this generation is whole: ladder verify"
        raise ModelError(f"what leaves layers {list(layers)} has length {found}", where="dose", remedy=remedy)
    return found


def walk(survived: Callable[[float], float], wanted: float = 0.75, low: float = 0.2, high: float = 1.0) -> Found:
    """The largest multiple of a dose at which enough of a model's texts survive, by bisection in logarithms to 5%.

    Args:
        survived: the share, 0 to 1, of some texts at a multiple that a filter keeps; deterministic.

    Returns:
        The multiple; the least one with a warning where even there too few survive.
    """
    share, steps = survived(high), 1
    if share >= wanted:
        return Found(high, share, steps)
    share, steps = survived(low), 2
    if share < wanted:
        return Found(
            low, share, steps, f"{share:.0%} of the texts survive at {low:g} of the dose, expected {wanted:.0%}"
        )
    best = Found(low, share, steps)
    while high / best.amount > 1 + TOLERANCE:
        middle = sqrt(best.amount * high)
        share, steps = survived(middle), steps + 1
        if share >= wanted:
            best = Found(middle, share, steps)
        else:
            high = middle
    return Found(best.amount, best.reached, steps)
