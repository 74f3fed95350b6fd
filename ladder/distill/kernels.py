"""What a tile of n rows goes through, as two functions of tensors, compiled or not: listen to the teachers, teach the
student; and the element-wise part of the fused loss, in a form that a compiler turns into a few passes.

The element-wise part is pure functions of tensors [n, V] and [n], without a choice that depends on their values. What
is removed from the vocabulary has the logit ``LOWEST``, which is finite so that 0 times it is 0.

With d = z - max z, e = exp(d / T) and q = exp(d): q is e or e^2 for the temperatures 1 and 2, so a distribution at both
temperatures costs one exponential an element.

The loss is bound by memory here, not by arithmetic: with a vocabulary of 50,000, each pass over [n, V] costs more than
what is computed in it. Hence two rules: whatever needs a row's elements takes them in a pass in which they are at hand
anyway, and no tensor [n, V] is made that another could hold.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from shutil import which
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from ladder.distill.divergence import POOLS, log_pool
from ladder.distill.evidence import Evidence, TeacherStatistics, evidence_of
from ladder.distill.objective import Objective, Seen, TokenLosses, agreement, examined, taught
from ladder.distill.routing import Route, Routing, RoutingSettings, route
from ladder.distill.temperature import teachers_variance
from ladder.distill.tokens import Decided, Known
from ladder.distill.vocabulary import column_of

LOWEST = -1e30
"""The logit of a removed column."""


class TokenStatistics(NamedTuple):
    """Statistics of one teacher's logits on a tile. At temperature 1: max z, top-1 probability, H(p) in nats and
    -ln p(y), all [n].

    ``mass`` is 1 / sum of e, so that p^T = ``power`` x ``mass``.
    """

    top: Tensor
    top1: Tensor
    entropy: Tensor
    surprisal: Tensor
    mass: Tensor
    power_nV: Tensor
    """e = exp((z - max z) / T)."""


class Weights(NamedTuple):
    """Factors of a tile's gradient, [n] each, the reduction weight included."""

    ce: Tensor
    """Of cross-entropy at temperature 1: alpha where CE counts, plus beta g on gold."""
    kd: Tensor
    """Of T^2 div(target || student)."""
    regularizer: Tensor
    """Of KL(p_1 || p_s)."""


class Terms(NamedTuple):
    """Terms of the loss on a tile, [n] each, unweighted; rows that a term does not concern hold something finite."""

    surprisal: Tensor
    kd: Tensor
    regularizer: Tensor
    confidence: Tensor
    """Largest probability of the student."""
    right: Tensor
    """1 where the label has its largest logit."""


Temperature = Tensor | float
"""Of the targets: a number, or one for each row [n, 1]."""


def token_statistics(
    logits: Sequence[Tensor], labels_n: Tensor, temperature: float
) -> tuple[list[TokenStatistics], Tensor]:
    """Statistics of the teachers' logits [n, V], and their Jensen-Shannon divergence [n] in nats (0 for one).

    ``labels_n`` holds a column everywhere; the surprisal of a row without label means nothing.
    """
    found, distributions = [], []
    for logits_nV in logits:
        # Less the largest logit, so that no exponential overflows and the largest of them is exactly 1: top-1 is then
        # 1 / sum, without another pass that looks for it.
        top_n1 = logits_nV.amax(-1, keepdim=True)
        shifted_nV = logits_nV - top_n1
        power_nV = (shifted_nV / temperature).exp()
        unit_nV = _at_one(power_nV, shifted_nV, temperature)
        total_n1 = unit_nV.sum(-1, keepdim=True)
        log_total_n1 = total_n1.log()
        # H = ln sum q - E[d]: no logarithm of an element is taken, and a q that underflows to 0 adds 0 and not NaN.
        entropy_n1 = log_total_n1 - (unit_nV * shifted_nV).sum(-1, keepdim=True) / total_n1
        surprisal_n1 = log_total_n1 + top_n1 - logits_nV.gather(-1, labels_n.unsqueeze(-1))
        columns = (top_n1, 1 / total_n1, entropy_n1, surprisal_n1, 1 / power_nV.sum(-1, keepdim=True))
        top_n, top1_n, entropy_n, surprisal_n, mass_n = (column.squeeze(-1) for column in columns)
        found.append(TokenStatistics(top_n, top1_n, entropy_n, surprisal_n, mass_n, power_nV))
        distributions.append((unit_nV / total_n1, shifted_nV - log_total_n1))
    return found, _jensen_shannon(distributions)


def turn_into_gradient_(
    student_nV: Tensor,
    objective: Objective,
    teachers: Sequence[tuple[Tensor, TokenStatistics]],
    shares: Sequence[Tensor],
    labels_n: Tensor,
    weights: Weights,
    temperature: Temperature,
    scale: float,
    cap: float | None,
) -> Terms:
    """Terms of a tile; ``student_nV`` then holds the gradient of its weighted loss with respect to the raw logits.

    Args:
        student_nV: logits, after scale and cap.
        teachers: logits [n, V] and figures, at this temperature, of those who teach here, in their order.
        shares: share [n] of each of them in the target, summing to 1 in every row.
        labels_n: a column everywhere; it counts where ``weights.ce`` is not 0.
    """
    label_n1 = labels_n.unsqueeze(-1)
    top_n1 = student_nV.amax(-1, keepdim=True)
    shifted_nV = student_nV - top_n1
    power_nV = (shifted_nV / temperature).exp()
    unit_nV = _at_one(power_nV, shifted_nV, temperature)
    total_n1, power_total_n1 = unit_nV.sum(-1, keepdim=True), power_nV.sum(-1, keepdim=True)
    label_logit_n1 = student_nV.gather(-1, label_n1)
    surprisal_n = (total_n1.log() + top_n1 - label_logit_n1).squeeze(-1)
    confidence_n, right_n = (1 / total_n1).squeeze(-1), (label_logit_n1 >= top_n1).squeeze(-1).to(student_nV.dtype)
    # A comparison and no scatter: it is element-wise, so the compiler puts it into the pass of its neighbours.
    is_label_nV = torch.arange(student_nV.shape[-1], device=student_nV.device) == label_n1
    gradient_nV = weights.ce.unsqueeze(-1) * (unit_nV / total_n1 - is_label_nV.to(student_nV.dtype))
    kd_n = regularizer_n = torch.zeros_like(surprisal_n)
    if teachers:
        log_s_nV = shifted_nV / temperature - power_total_n1.log()
        kd_n, direction_nV = _DIVERGENCES[objective.direction](
            _Target(teachers, shares, objective, temperature), power_nV / power_total_n1, log_s_nV, objective
        )
        at_n = temperature if isinstance(temperature, float) else temperature.squeeze(-1)
        # The loss has the factor T^2, which keeps its gradient of one size whatever T is; d/dz of a function of z / T
        # takes 1 / T of it away again. So the gradient below has the factor T.
        kd_n = kd_n * at_n**2
        gradient_nV = gradient_nV + (weights.kd * at_n).unsqueeze(-1) * direction_nV
    if teachers and objective.gamma:
        regularizer_n, direction_nV = _agreement(
            teachers[0], unit_nV / total_n1, shifted_nV - total_n1.log(), temperature
        )
        gradient_nV = gradient_nV + weights.regularizer.unsqueeze(-1) * direction_nV
    # In place of the logits, which nobody reads any more: a fourth buffer [chunk, V] would make chunks shorter, and the
    # two products that follow slower. The slope is the last reader, because the cap's derivative is one of the logits.
    student_nV.copy_(gradient_nV * slope(student_nV, scale, cap))
    return Terms(surprisal_n, kd_n, regularizer_n, confidence_n, right_n)


class _Target(NamedTuple):
    """The target distribution of a tile: the blend of the teachers that take part."""

    teachers: Sequence[tuple[Tensor, TokenStatistics]]
    shares: Sequence[Tensor]
    objective: Objective
    temperature: Temperature

    def probabilities(self) -> Tensor:
        """Mixture at T, [n, V]."""
        parts = [
            (share * known.mass).unsqueeze(-1) * known.power_nV
            for (_, known), share in zip(self.teachers, self.shares, strict=True)
        ]
        return functools.reduce(torch.add, parts)

    def log_probabilities(self) -> Tensor:
        """Log of the target at T, [n, V], without leaving log space."""
        logs = [
            (logits_nV - known.top.unsqueeze(-1)) / self.temperature + known.mass.log().unsqueeze(-1)
            for logits_nV, known in self.teachers
        ]
        return log_pool(logs, self.shares, self.objective.pooling)


def _forward(target: _Target, s_nV: Tensor, log_s_nV: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """KL(t || s), and its gradient with respect to the logits at T: s - t."""
    if objective.pooling == "probabilities" or len(target.teachers) == 1:
        target_nV = target.probabilities()
        log_target_nV = target_nV.log()
    else:
        log_target_nV = target.log_probabilities()
        target_nV = log_target_nV.exp()
    return _expected(target_nV, log_target_nV - log_s_nV), s_nV - target_nV


def _reverse(target: _Target, s_nV: Tensor, log_s_nV: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """KL(s || t), and its gradient s (f - E_s f) with f = log s - log t."""
    return _centred(s_nV, log_s_nV - target.log_probabilities())


def _jsd(target: _Target, s_nV: Tensor, log_s_nV: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """w KL(t || m) + (1 - w) KL(s || m), and its gradient s (f - E_s f) with f = (1 - w) (log s - log m)."""
    log_target_nV, weight = target.log_probabilities(), objective.jsd_weight
    log_m_nV = POOLS["probabilities"](log_target_nV, log_s_nV, torch.full_like(log_s_nV[:, :1], weight))
    from_target_n = weight * _expected(log_target_nV.exp(), log_target_nV - log_m_nV)
    from_student_n, slope_nV = _centred(s_nV, (1 - weight) * (log_s_nV - log_m_nV))
    return from_target_n + from_student_n, slope_nV


_DIVERGENCES: dict[str, Callable[[_Target, Tensor, Tensor, Objective], tuple[Tensor, Tensor]]] = {
    "forward": _forward,
    "reverse": _reverse,
    "jsd": _jsd,
}


def _agreement(
    teacher: tuple[Tensor, TokenStatistics], s_nV: Tensor, log_s_nV: Tensor, temperature: Temperature
) -> tuple[Tensor, Tensor]:
    """KL(p_1 || p_s) at temperature 1, and its gradient p_s - p_1."""
    logits_nV, known = teacher
    shifted_nV = logits_nV - known.top.unsqueeze(-1)
    top1_n1 = known.top1.unsqueeze(-1)
    p_nV = _at_one(known.power_nV, shifted_nV, temperature) * top1_n1
    return _expected(p_nV, shifted_nV + top1_n1.log() - log_s_nV), s_nV - p_nV


def _jensen_shannon(distributions: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """JS of several p from p and log p, [n]; the differences of logarithms are small where they agree."""
    count = len(distributions)
    if count == 1:
        return torch.zeros_like(distributions[0][0][:, 0])
    mean_nV = functools.reduce(torch.add, [p_nV for p_nV, _ in distributions]) / count
    log_mean_nV = mean_nV.log()
    parts_nV = functools.reduce(torch.add, [p_nV * (log_p_nV - log_mean_nV) for p_nV, log_p_nV in distributions])
    return (torch.where(mean_nV > 0, parts_nV, 0.0).sum(-1) / count).clamp(0.0, math.log(count))


def _at_one(power_nV: Tensor, shifted_nV: Tensor, temperature: Temperature) -> Tensor:
    """exp(d) from e = exp(d / T)."""
    if not isinstance(temperature, float):
        return shifted_nV.exp()
    if temperature == 1.0:
        return power_nV
    return power_nV * power_nV if temperature == 2.0 else shifted_nV.exp()


def slope(logits_nV: Tensor, scale: float, cap: float | None) -> Tensor | float:
    """d logit / d raw logit, where logit = cap tanh(scale raw / cap); 0 in a removed column."""
    return scale if cap is None else scale * (1 - (logits_nV / cap).clamp(-1.0, 1.0) ** 2)


def _expected(p_nV: Tensor, value_nV: Tensor) -> Tensor:
    """E_p f, [n]. Where p is 0 its logarithm is -inf, and 0 times that would be NaN."""
    return torch.where(p_nV > 0, p_nV * value_nV, 0.0).sum(-1)


def _centred(s_nV: Tensor, value_nV: Tensor) -> tuple[Tensor, Tensor]:
    """E_s f, and s (f - E_s f)."""
    mean_n = _expected(s_nV, value_nV)
    return mean_n, torch.where(s_nV > 0, s_nV * (value_nV - mean_n.unsqueeze(-1)), 0.0)


F = TypeVar("F", bound=Callable)
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


@cache
def has_compiler(device: str) -> bool:
    """Whether ``torch.compile`` can make code for this kind of device: a C++ compiler on a CPU, and on a GPU Triton
    with the C compiler that it builds its launchers with, which is ``CC`` where that is set, else gcc or clang."""
    if device != "cpu":
        named = os.environ.get("CC")
        return find_spec("triton") is not None and any(map(which, [named] if named else ["gcc", "clang"]))
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return bool(get_cpp_compiler())
    except Exception:
        # Whatever is missing, the answer is the same, and the eager function gives the same numbers.
        return False


_WORTH = {"cpu": 4e9, "cuda": 2e11}
"""Elements of logits [N, V] over a run from which on compiling pays. On two cores it takes up to half a minute and
saves about 5 ns an element. On a GPU it takes a minute, Triton's kernels included, and saves some 70 passes of 4 bytes
an element at about a terabyte a second, 0.3 ns: reckoned, and not measured."""


def pays_to_compile(elements: float, device: str) -> bool:
    """Whether compiled kernels save more than they cost over a run.

    Args:
        elements: of logits [N, V], of all steps.
        device: its kind, such as ``cuda``.
    """
    return elements > _WORTH.get(device, _WORTH["cuda"])


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
    if speakers < 2:
        return [torch.ones_like(routing.gain_N, dtype=dtype)] * speakers
    first_n, *others = routing.weights_KN.to(dtype).unbind(0)
    shares = [first_n.where(taught(routing), 1.0), *others[:-1]]
    # What is left of 1, and not the last weight as it was rounded.
    return [*shares, (1 - functools.reduce(torch.add, shares)).clamp_min(0.0)]


@dataclass(frozen=True)
class Kernels:
    """One pair for each objective, routing table, size of vocabulary and number of teachers."""

    listen: Callable[[Sequence[Tensor], Sequence[Known | None], Tensor], tuple[list[TokenStatistics], Evidence]]
    """:func:`listen` with its other arguments."""
    teach: Callable[..., tuple[TokenLosses, Routing, Seen]]
    """:func:`teach` for the objective and the table, with its other arguments."""


@cache
def kernels_of(objective: Objective, settings: RoutingSettings, size: int, compile: bool, speakers: int = 2) -> Kernels:
    """The kernels for V = ``size`` columns that take part; compiled ones are kept for the life of the process.

    Args:
        speakers: teachers that are asked. Each number has code of its own, because the compiler gives up a function
            that it had to make for too many cases.
    """

    def listen_kernel(
        logits: Sequence[Tensor], known: Sequence[Known | None], labels_n: Tensor
    ) -> tuple[list[TokenStatistics], Evidence]:
        return listen(logits, known, labels_n, objective.temperature, settings.confidence, size)

    def teach_kernel(*given: Any) -> tuple[TokenLosses, Routing, Seen]:
        return teach(objective, settings, size, *given)

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
    """Figures of the teachers' logits [n, V], and what routing reads.

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
    size: int,
    student_nV: Tensor,
    teachers: Sequence[tuple[Tensor, TokenStatistics]],
    evidence: Evidence | None,
    tokens: Decided,
    alone_S: Tensor,
    scale: float,
    cap: float | None,
) -> tuple[TokenLosses, Routing, Seen]:
    """Losses and final routes of a tile, and what is seen on the way; the student's logits give way to the gradient of
    its raw logits.

    Args:
        size: columns that take part.
        teachers: logits [n, V] and figures of the S who were asked about these tokens, in their order.
        evidence: what tokens that are still open are routed by; None where none is.
        tokens: with weights of these S teachers.
        alone_S: the route of each of them where it teaches alone.
    """
    routing, labels_n = tokens.routing, tokens.labels_n
    if evidence is not None:
        routing = route(evidence, labels_n, settings, alone_S=alone_S).where(tokens.open_n, routing)
    dtype = student_nV.dtype
    factors = Factors.of(routing, labels_n, tokens.dream_n, objective, dtype)
    weights, shares = factors.weights(tokens.weight_n), shares_of(routing, len(teachers), dtype)
    temperature: Temperature = objective.temperature
    if objective.variance is not None:
        totals = [known.top - known.top1.log() for _, known in teachers]
        variance_n = teachers_variance([one for one, _ in teachers], totals, shares, size) if teachers else None
        temperature = objective.variance.of(weights.ce * 0 if variance_n is None else variance_n).unsqueeze(-1)
        teachers = [(one, _at(temperature, one, known)) for one, known in teachers]
    terms = turn_into_gradient_(
        student_nV, objective, teachers, shares, column_of(labels_n), weights, temperature, scale, cap
    )
    at_n = torch.full_like(terms.kd, temperature) if isinstance(temperature, float) else temperature.squeeze(-1)
    return factors.losses(terms), routing, Seen(terms.confidence, terms.right, at_n)


def _at(temperature_n1: Tensor, logits_nV: Tensor, known: TokenStatistics) -> TokenStatistics:
    """A teacher's figures with its distribution at another temperature."""
    power_nV = ((logits_nV - known.top.unsqueeze(-1)) / temperature_n1).exp()
    return known._replace(power_nV=power_nV, mass=1 / power_nV.sum(-1))
