"""Who answers together with a generation: ``--with``, ``--weights`` and ``--pooling`` of several verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from time import perf_counter
from typing import get_args

from ladder.errors import UsageError
from ladder.models import EnsembleSpec, Pooling, continue_rows, shares
from ladder.registry import Generation, Registry


@dataclass(frozen=True)
class Together:
    """Those who answer with a generation.

    Args:
        others: the further members.
        weights: of all members, the generation's first; their sum is 1.
        pooling: how their distributions become one.
    """

    others: tuple[Generation, ...]
    weights: tuple[float, ...]
    pooling: Pooling

    @classmethod
    def of(cls, registry: Registry, others: Sequence[str], weights: str | None, pooling: str | None) -> Together | None:
        """What the command says; None where it names nobody.

        Raises:
            UsageError: weights that mean nothing, a pooling that there is not, or either without ``--with``.
            NotFound: no generation answers to a reference.
        """
        if not others:
            if weights is not None or pooling is not None:
                raise UsageError(
                    "there is nobody to mix with",
                    where="--pooling" if weights is None else "--weights",
                    remedy="name who answers together with it: --with Luna-G009",
                )
            return None
        pool = next((known for known in get_args(Pooling) if known == (pooling or "probabilities")), None)
        if pool is None:
            raise UsageError(
                f"{pooling!r} is no pooling", where="--pooling", remedy=f"one of {', '.join(get_args(Pooling))}"
            )
        mixed = shares(None if weights is None else _numbers(weights), 1 + len(others))
        return cls(tuple(registry.find(other) for other in others), mixed, pool)

    def named(self, generation: Generation) -> str:
        """All members with their weights, in one line."""
        members = zip((generation, *self.others), self.weights, strict=True)
        mixed = " + ".join(f"{weight:.4g} {member.ref}" for member, weight in members)
        return mixed if self.pooling == "probabilities" else f"{mixed} (logits)"


def ensemble_of(registry: Registry, generation: Generation, together: Together | None) -> EnsembleSpec:
    """A generation, alone or with others.

    Raises:
        TokenizerMismatch: one of the others has another tokenizer.
    """
    if together is None:
        return EnsembleSpec((registry.materialize(generation),))
    members = (generation, *together.others)
    spec = EnsembleSpec(tuple(map(registry.materialize, members)), together.weights, together.pooling)
    spec.check([member.ref for member in members])
    return spec


@dataclass(frozen=True)
class Cost:
    """What the next token takes on this machine's CPU.

    Args:
        passes: forward passes, one of each model.
        seconds: of one text at a time, the quickest of some repetitions.
    """

    passes: int
    seconds: float


_WRITTEN, _REPEATED = 24, 3
"""Tokens that are written to measure a cost, and how often."""


def measure_costs(one: EnsembleSpec, other: EnsembleSpec, dtype: str) -> tuple[Cost, Cost]:
    """Costs of two, measured in turns, so that a busy machine is as busy for both."""
    models = [spec.load(dtype) for spec in (one, other)]
    seconds = [inf, inf]
    for _, (place, model) in product(range(_REPEATED), enumerate(models)):
        began = perf_counter()
        continue_rows(model, [[0] * 8], pad=0, ends=[], max_new_tokens=_WRITTEN, do_sample=False)
        seconds[place] = min(seconds[place], (perf_counter() - began) / _WRITTEN)
    first, second = (Cost(len(spec.speaking), each) for spec, each in zip((one, other), seconds, strict=True))
    return first, second


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        remedy = "write one number a member with commas between them, such as 0.5,0.5"
        raise UsageError(f"{text!r} are no weights", where="--weights", remedy=remedy) from None
