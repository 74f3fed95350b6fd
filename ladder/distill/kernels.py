"""What a tile goes through, as two functions of tensors, compiled or not: listen to the teachers, teach the student."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import FunctionType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ladder.distill.evidence import Evidence, TeacherStatistics, evidence_of
from ladder.distill.objective import Objective, TokenLosses, agreement, examined, taught
from ladder.distill.routing import Route, Routing, RoutingSettings, route
from ladder.distill.tile import Terms, TokenStatistics, Weights, token_statistics, turn_into_gradient_
from ladder.distill.tokens import Decided, Known
from ladder.distill.vocabulary import column_of

F = TypeVar("F", bound=Callable)
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@cache
def has_compiler(device: str) -> bool:
    """Whether ``torch.compile`` can make code for this kind of device: Triton on a GPU, a C++ compiler on a CPU."""
    if device != "cpu":
        return find_spec("triton") is not None
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return bool(get_cpp_compiler())
    except Exception:
        # Whatever is missing, the answer is the same, and the eager function gives the same numbers.
        return False


def compiled(function: F) -> F:
    """The function in compiled form, for any number of rows and columns.

    Its first call takes some seconds, less where the compiler's cache on disk has it already. The compiler counts
    variants by code object and gives up after eight, so each function gets a code object of its own; past that it runs
    the function as it is, which gives the same numbers.
    """
    _separate_caches()
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, None, function.__closure__)
    return cast(F, torch.compile(own, dynamic=True))


def _separate_caches() -> None:
    """Give each instruction set a cache of its own: the compiler's does not tell them apart, and code that was made for
    another one crashes or computes something else. A folder that a person has named stays."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # Torch writes its own choice into the environment.
    if os.environ.get(_CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[_CACHE] = f"{default_cache_dir()}_{torch.backends.cpu.get_cpu_capability().lower()}"


@dataclass(frozen=True, eq=False)
class Factors:
    """Of n tokens, [n] each, 0 where a term does not count."""

    ce: Tensor
    """1 where cross-entropy counts."""
    gold: Tensor
    """g on the gold route."""
    taught: Tensor
    """g where a teacher teaches."""
    agreement: Tensor
    """1 - JS / ln 2 on BLENDED."""
    objective: Objective

    @classmethod
    def of(
        cls, routing: Routing, labels_n: Tensor, dream_n: Tensor, objective: Objective, dtype: torch.dtype
    ) -> Factors:
        """Factors of these tokens."""
        gain_n, gold_n = routing.gain_N.to(dtype), routing.on(Route.GOLD)
        return cls(
            examined(labels_n, routing, objective, dream_n).to(dtype),
            gain_n.where(gold_n, 0.0),
            gain_n.where(taught(routing), 0.0),
            agreement(routing, dtype),
            objective,
        )

    def weights(self, weight_n: Tensor) -> Weights:
        """Factors of the gradient, with the reduction weight [n]."""
        alpha, beta, gamma = self.objective.alpha, self.objective.beta, self.objective.gamma
        return Weights(
            ce=(alpha * self.ce + beta * self.gold) * weight_n,
            kd=beta * self.taught * weight_n,
            regularizer=gamma * self.agreement * weight_n,
        )

    def losses(self, terms: Terms) -> TokenLosses:
        """The terms where they count, and L = alpha CE + beta g KD + gamma R."""
        alpha, beta, gamma = self.objective.alpha, self.objective.beta, self.objective.gamma
        ce_n = terms.surprisal.where(self.ce != 0, 0.0)
        kd_n = terms.surprisal.where(self.gold != 0, terms.kd.where(self.taught != 0, 0.0))
        regularizer_n = self.agreement * terms.regularizer
        gain_n = self.gold + self.taught
        return TokenLosses(alpha * ce_n + beta * gain_n * kd_n + gamma * regularizer_n, ce_n, kd_n, regularizer_n)


def shares_of(routing: Routing, speakers: int, dtype: torch.dtype) -> list[Tensor]:
    """Each teacher's share in the target distribution, [n] each; they sum to 1, also where no teacher teaches."""
    if speakers == 2:
        weight1_n = routing.weight1_N.to(dtype).where(taught(routing), 1.0)
        return [weight1_n, 1 - weight1_n]
    return [torch.ones_like(routing.weight1_N, dtype=dtype)] * speakers


@dataclass(frozen=True)
class Kernels:
    """One pair for each objective, routing table and size of vocabulary."""

    listen: Callable[[Sequence[Tensor], Sequence[Known | None], Tensor], tuple[list[TokenStatistics], Evidence]]
    """:func:`listen` with its other arguments."""
    teach: Callable[..., tuple[TokenLosses, Routing]]
    """:func:`teach` for the objective and the table, with its other arguments."""


@cache
def kernels_of(objective: Objective, settings: RoutingSettings, size: int, compile: bool) -> Kernels:
    """The kernels for V = ``size`` columns that take part; compiled ones are kept for the life of the process."""

    def listen_kernel(
        logits: Sequence[Tensor], known: Sequence[Known | None], labels_n: Tensor
    ) -> tuple[list[TokenStatistics], Evidence]:
        return listen(logits, known, labels_n, objective.temperature, settings.confidence, size)

    def teach_kernel(*given: Any) -> tuple[TokenLosses, Routing]:
        return teach(objective, settings, *given)

    if not compile:
        return Kernels(listen_kernel, teach_kernel)
    return Kernels(compiled(listen_kernel), compiled(teach_kernel))


def listen(
    logits: Sequence[Tensor],
    known: Sequence[Known | None],
    labels_n: Tensor,
    temperature: float,
    confidence: str,
    size: int,
) -> tuple[list[TokenStatistics], Evidence]:
    """Figures of one or two teachers' logits [n, V], and what routing reads.

    Args:
        known: of each teacher what it knows exactly, which replaces what its logits say; None where they are exact.
        labels_n: id of the gold token, or IGNORE.
    """
    found, js_n = token_statistics(logits, column_of(labels_n), temperature)
    told: list[TeacherStatistics] = [exact or one for exact, one in zip(known, found, strict=True)]
    return found, evidence_of(told, js_n, labels_n, confidence, size)


def teach(
    objective: Objective,
    settings: RoutingSettings,
    student_nV: Tensor,
    teachers: Sequence[tuple[Tensor, TokenStatistics]],
    evidence: Evidence | None,
    tokens: Decided,
    scale: float,
    cap: float | None,
) -> tuple[TokenLosses, Routing]:
    """Losses and final routes of a tile; the student's logits give way to the gradient of its raw logits.

    Args:
        teachers: logits [n, V] and figures of those who were asked about these tokens, teacher 1 first.
        evidence: what tokens that are still open are routed by; None where none is.
    """
    routing, labels_n = tokens.routing, tokens.labels_n
    if evidence is not None:
        routing = route(evidence, labels_n, settings).where(tokens.open_n, routing)
    dtype = student_nV.dtype
    factors = Factors.of(routing, labels_n, tokens.dream_n, objective, dtype)
    weights, shares = factors.weights(tokens.weight_n), shares_of(routing, len(teachers), dtype)
    terms = turn_into_gradient_(student_nV, objective, teachers, shares, column_of(labels_n), weights, scale, cap)
    return factors.losses(terms), routing
