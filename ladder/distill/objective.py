"""The loss of each token, dense and exact: L = alpha CE + beta g KD + gamma R, and where descent on it would end.

And its reduction to one number: each source of a batch is averaged by itself, then weighed by its share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ladder.distill.divergence import DIRECTIONS, POOLS, chosen, kl, log_probabilities, log_target, upcast
from ladder.distill.routing import Route, Routing
from ladder.distill.temperature import VarianceTemperature, teachers_variance
from ladder.distill.vocabulary import IGNORE
from ladder.errors import LadderError

CE_ON: dict[str, Callable[[Routing], Tensor]] = {
    "gold": lambda routing: routing.trained_N,
    "fallback": lambda routing: routing.on(Route.GOLD),
}
"""The words of ``training_params.ce_on``: which tokens may cost cross-entropy, bool [N], if they have a label."""


@dataclass(frozen=True)
class Objective:
    """The part of ``training_params`` that defines the loss; the manifest explains each field.

    Raises:
        LadderError: a temperature that is not positive, a JSD weight outside 0..1, or an unknown word.
    """

    alpha: float = 0.1
    beta: float = 0.9
    gamma: float = 0.0
    temperature: float = 2.0
    pooling: Literal["probabilities", "logits"] = "probabilities"
    direction: Literal["forward", "reverse", "jsd"] = "forward"
    jsd_weight: float = 0.5
    ce_on: Literal["gold", "fallback"] = "gold"
    variance: VarianceTemperature | None = None
    """Where set, each token's target has a temperature of its own; ``temperature`` is then 1, at which teachers are
    heard."""

    def __post_init__(self) -> None:
        chosen(POOLS, self.pooling, "training_params.pooling")
        chosen(DIRECTIONS, self.direction, "training_params.direction")
        chosen(CE_ON, self.ce_on, "training_params.ce_on")
        if not isinstance(self.temperature, int | float):
            raise LadderError(
                f"found {self.temperature!r}, expected a number",
                where="training_params.temperature",
                remedy="write a number, or let the method take ladder.methods.base.temperature_of",
            )
        if not self.temperature > 0:
            raise LadderError(f"found {self.temperature}, expected above 0", where="training_params.temperature")
        if self.variance and self.temperature != 1:
            raise LadderError(f"found {self.temperature} and a variance, expected 1", where="training_params.variance")
        if not 0 < self.jsd_weight < 1:
            raise LadderError(f"found {self.jsd_weight}, expected 0 < w < 1", where="training_params.jsd_weight")


@dataclass(frozen=True, eq=False)
class TokenLosses:
    """Per token, [N], in nats: loss = alpha ce + beta g kd + gamma regularizer."""

    loss: Tensor
    """Exactly 0 on SKIP."""
    ce: Tensor
    """Cross-entropy at temperature 1 where it is part of the loss, 0 elsewhere. Not yet times alpha."""
    kd: Tensor
    """T^2 div(target || student at T); on GOLD cross-entropy at temperature 1. Not yet times beta g."""
    regularizer: Tensor
    """R on BLENDED, 0 elsewhere. Not yet times gamma."""

    def fill_(self, rows_n: Tensor, part: TokenLosses) -> None:
        """Put the losses of some tokens in their places."""
        self.loss[rows_n], self.ce[rows_n] = part.loss, part.ce
        self.kd[rows_n], self.regularizer[rows_n] = part.kd, part.regularizer


@dataclass(frozen=True, eq=False)
class Seen:
    """What is seen of each token on the way, [N]; nothing of it is part of the loss."""

    confidence: Tensor
    """The student's top-1 probability, 0 to 1."""
    right: Tensor
    """1 where the gold label has its largest logit; means nothing where there is no label."""
    temperature: Tensor
    """T of the target."""

    def fill_(self, rows_n: Tensor, part: Seen) -> None:
        """Put what was seen of some tokens in its places."""
        self.confidence[rows_n], self.right[rows_n] = part.confidence, part.right
        self.temperature[rows_n] = part.temperature


def token_losses(
    student_NV: Tensor,
    teachers: Sequence[Tensor | None],
    labels_N: Tensor,
    routing: Routing,
    objective: Objective,
    is_dream_N: Tensor | None = None,
) -> TokenLosses:
    """Loss of each token from logits over the same V columns (see :class:`Columns`). Gradients reach the student only.

    A dream costs beta g KD (g = 1) with its dreamer as target: neither CE nor R, whatever its labels say.
    A teacher may be None where no route needs it. Half precision is computed in float32, float64 stays float64.

    Args:
        student_NV: logits [N, V].
        teachers: logits [N, V] of K teachers. A teacher's rows without a share in the target may hold anything.
        labels_N: column of the gold token, or IGNORE; int [N].
        is_dream_N: bool [N]; no dreams when left out.

    Raises:
        LadderError: shapes that do not fit, a route that needs an absent teacher, or GOLD on a token without label.
    """
    _check(student_NV, teachers, labels_N, routing)
    student_NV = upcast(student_NV)
    gold_N = routing.on(Route.GOLD)
    examined_N = examined(labels_N, routing, objective, is_dream_N)
    surprisal_N = _surprisal(student_NV, labels_N, gold_N | examined_N)
    ce_N = surprisal_N.where(examined_N, 0.0)
    kd_N = surprisal_N.where(gold_N, _distillation(student_NV, teachers, routing, objective))
    regularizer_N = _regularizer(student_NV, teachers, routing)
    gain_N = routing.gain_N.to(kd_N.dtype)
    loss_N = _times(objective.alpha, ce_N) + _times(objective.beta, gain_N * kd_N)
    return TokenLosses(loss_N + _times(objective.gamma, regularizer_N), ce_N, kd_N, regularizer_N)


def examined(labels_N: Tensor, routing: Routing, objective: Objective, is_dream_N: Tensor | None) -> Tensor:
    """Where CE is part of the loss, bool [N]."""
    examined_N = CE_ON[objective.ce_on](routing) & (labels_N != IGNORE)
    return examined_N if is_dream_N is None else examined_N & ~is_dream_N


def _surprisal(student_NV: Tensor, labels_N: Tensor, rows_N: Tensor) -> Tensor:
    """-ln p_s(y), [N]; 0 outside ``rows_N``."""
    log_s_NV = log_probabilities(_only(student_NV, rows_N))
    columns_N1 = labels_N.long().where(rows_N, 0).unsqueeze(-1)
    surprisal_N = -log_s_NV.gather(-1, columns_N1).squeeze(-1)
    return surprisal_N.where(rows_N, 0.0)


def _distillation(
    student_NV: Tensor, teachers: Sequence[Tensor | None], routing: Routing, objective: Objective
) -> Tensor:
    """T^2 div(target || p_s^T), [N]; 0 where no teacher teaches."""
    taught_N = taught(routing)
    told = [_frozen(logits_NV, taught_N) for logits_NV in teachers]
    told = told if any(one is not None for one in told) else [torch.zeros_like(student_NV.detach())]
    weights_KN = routing.weights_KN.to(student_NV.dtype)
    temperature = _temperature(told, weights_KN, objective)
    log_t_NV = log_target(told, weights_KN, temperature, objective.pooling)
    log_s_NV = log_probabilities(_only(student_NV, taught_N), temperature)
    divergence_N = DIRECTIONS[objective.direction](log_t_NV, log_s_NV, objective.jsd_weight)
    at_N = temperature.squeeze(-1) if isinstance(temperature, Tensor) else temperature
    return at_N**2 * divergence_N.where(taught_N, 0.0)


def _temperature(told: Sequence[Tensor | None], weights_KN: Tensor, objective: Objective) -> Tensor | float:
    """T of the targets; where it varies, [N, 1]."""
    if objective.variance is None:
        return objective.temperature
    there = [(one, weight_N) for one, weight_N in zip(told, weights_KN, strict=False) if one is not None]
    # A teacher without a weight may have said anything.
    logits = [logits_NV.where(weight_N.unsqueeze(-1) > 0, 0.0) for logits_NV, weight_N in there]
    totals, shares = [one.logsumexp(-1) for one in logits], [weight_N for _, weight_N in there]
    # What is left of 1, as in the pools, and not the last weight as it was rounded.
    others_N = sum(shares[:-1], torch.zeros_like(shares[-1]))
    shares[-1] = (1 - others_N).where(shares[-1] > 0, 0.0)
    return objective.variance.of(teachers_variance(logits, totals, shares, logits[0].shape[-1])).unsqueeze(-1)


def _regularizer(student_NV: Tensor, teachers: Sequence[Tensor | None], routing: Routing) -> Tensor:
    """R = (1 - JS / ln S) KL(p_1 || p_s) at temperature 1, [N], with the first teacher there is; 0 outside BLENDED."""
    blended_N = routing.on(Route.BLENDED)
    first_NV = next((_frozen(one_NV, blended_N) for one_NV in teachers if one_NV is not None), None)
    log_p_NV = log_probabilities(torch.zeros_like(student_NV) if first_NV is None else first_NV)
    divergence_N = kl(log_p_NV, log_probabilities(_only(student_NV, blended_N)))
    return agreement(routing, student_NV.dtype) * divergence_N.where(blended_N, 0.0)


def agreement(routing: Routing, dtype: torch.dtype) -> Tensor:
    """1 - JS / ln S on BLENDED, 0 elsewhere, [N]: the weight of R before gamma."""
    return routing.agreement_N.to(dtype).where(routing.on(Route.BLENDED), 0.0)


def taught(routing: Routing) -> Tensor:
    """Where the target comes from a teacher, bool [N]."""
    return routing.route_N >= int(Route.TEACHER1)


def _only(logits_NV: Tensor, rows_N: Tensor) -> Tensor:
    """The logits in these rows, zeros in the others; no gradient reaches the others."""
    return logits_NV.where(rows_N.unsqueeze(-1), 0.0)


def _frozen(teacher_NV: Tensor | None, rows_N: Tensor) -> Tensor | None:
    """A teacher's logits in these rows, zeros in the others. Carries no gradient."""
    return None if teacher_NV is None else _only(upcast(teacher_NV.detach()), rows_N)


def _times(weight: float, value_N: Tensor) -> Tensor:
    """A term without weight is left out of the graph: 0 times an infinite loss would be NaN."""
    return weight * value_N if weight else torch.zeros_like(value_N)


def _check(student_NV: Tensor, teachers: Sequence[Tensor | None], labels_N: Tensor, routing: Routing) -> None:
    for number, logits_NV in enumerate(teachers, 1):
        if logits_NV is not None and logits_NV.shape != student_NV.shape:
            found, expected = tuple(logits_NV.shape), tuple(student_NV.shape)
            raise LadderError(f"teacher {number} has {found} logits, expected {expected}")
    for name, value_N in (("labels", labels_N), ("routes", routing.route_N)):
        if value_N.shape != student_NV.shape[:1]:
            raise LadderError(f"found {tuple(value_N.shape)} {name}, expected {tuple(student_NV.shape[:1])}")
    if (routing.on(Route.GOLD) & (labels_N == IGNORE)).any():
        raise LadderError("a token without label is routed to gold", remedy="route with the same labels")
    taught_N, blended_N = taught(routing), routing.on(Route.BLENDED)
    for number, weight_N in enumerate(routing.weights_KN, 1):
        absent = number > len(teachers) or teachers[number - 1] is None
        if absent and (taught_N & (weight_N > 0)).any():
            raise LadderError(
                f"teacher {number} is absent, and a route needs it", remedy="gather the evidence without it"
            )
    if all(one is None for one in teachers) and blended_N.any():
        raise LadderError("tokens are blended, and there is no teacher")


STEPS, RATE = 150, 0.2
"""Of Adam. Together they can move a logit by 30."""


@dataclass(frozen=True)
class Forecast:
    """Counts of tokens.

    Args:
        unknown: with a gold label that no teacher puts first.
        lost: of these, those whose label does not come first where the loss is least.
    """

    unknown: int = 0
    lost: int = 0

    @property
    def share(self) -> float:
        """Of what the teachers do not know, how much will not be learned, 0 to 1."""
        return self.lost / max(1, self.unknown)

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(self.unknown + other.unknown, self.lost + other.lost)


def unknown(teachers: Sequence[Tensor | None], labels_N: Tensor) -> Tensor:
    """Tokens with a gold label that no teacher puts first, bool [N]."""
    wrong_N = labels_N != IGNORE
    for teacher_NV in teachers:
        if teacher_NV is not None:
            wrong_N &= teacher_NV.argmax(-1) != labels_N
    return wrong_N


def forecast(teachers: Sequence[Tensor | None], labels_N: Tensor, routing: Routing, objective: Objective) -> Forecast:
    """Count over tokens that no teacher knows (``unknown``). Holds a handful of tensors [N, V].

    Args:
        teachers: logits [N, V] of those who teach; None for those who do not.
        labels_N: column of the gold token, int64 [N].
        routing: of these tokens, in the run.
    """
    first_NV = next(one_NV for one_NV in teachers if one_NV is not None)
    student_NV = upcast(first_NV).clone().requires_grad_()
    optimizer = torch.optim.Adam([student_NV], lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        token_losses(student_NV, teachers, labels_N, routing, objective).loss.sum().backward()
        optimizer.step()
    return Forecast(len(labels_N), int((student_NV.argmax(-1) != labels_N).sum()))


def route_shares(route_N: Tensor) -> dict[str, int]:
    """Tokens on each route, under its name in small letters: ``{"skip": 3, "gold": 12, ...}``. Every route is named.

    Counts, so that they add up over micro-batches and ranks.
    """
    counts_R = torch.bincount(route_N.long(), minlength=len(Route)).tolist()
    return {kind.name.lower(): counts_R[kind] for kind in Route}


def source_counts(trained_N: Tensor, source_N: Tensor, n_sources: int) -> Tensor:
    """Trained tokens of each source, int64 [S]. Add them up over micro-batches and ranks.

    Args:
        trained_N: False on SKIP, bool [N].
        source_N: index of each token's source, 0 to S-1, int [N].
        n_sources: S.
    """
    counts_S = torch.zeros(n_sources, dtype=torch.int64, device=source_N.device)
    return counts_S.index_add_(0, source_N.long(), trained_N.long())


def reduction_weights(trained_N: Tensor, source_N: Tensor, counts_S: Tensor, shares_S: Tensor) -> Tensor:
    """Weight of each token, [N] in the dtype of the shares; the loss of the step is the sum of weight * loss.

    share_s / count_s, with the shares normalised over the sources that have a trained token, and 0 on SKIP. All 0
    where nothing is trained, or only sources whose share is 0.

    Args:
        trained_N: which tokens of this micro-batch are trained, False on SKIP, bool [N].
        source_N: index of each token's source, int [N].
        counts_S: trained tokens of each source in the whole step, int [S].
        shares_S: share of each source, at least 0, float [S].
    """
    present_S = shares_S.where(counts_S > 0, 0.0)
    total = present_S.sum()
    weight_S = (present_S / (total * counts_S)).where(present_S > 0, 0.0)
    return weight_S[source_N.long()].where(trained_N, 0.0)
