"""Whether a recipe can teach what its teachers do not know: is the gold label what the loss asks for?

A token's loss alpha CE + beta KL(target || p) is least at p proportional to alpha onehot(gold) + beta target. Where the
teachers put another token first and the route leads to them, that is the gold label only if alpha outweighs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder.distill.blending import log_target
from ladder.distill.evidence import gather_evidence
from ladder.distill.objective import Objective, examined, taught
from ladder.distill.routing import Route, RoutingSettings, route
from ladder.distill.vocabulary import IGNORE


@dataclass(frozen=True)
class Forecast:
    """Counts of tokens.

    Args:
        unknown: with a gold label that no teacher puts first.
        lost: of these, those at which the loss is least for another token, or that nobody teaches.
    """

    unknown: int = 0
    lost: int = 0

    @property
    def share(self) -> float:
        """Of what the teachers do not know, how much will not be learned, 0 to 1."""
        return self.lost / max(1, self.unknown)

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(self.unknown + other.unknown, self.lost + other.lost)


@torch.no_grad()
def forecast(
    teacher1_NV: Tensor,
    teacher2_NV: Tensor | None,
    labels_N: Tensor,
    row_N: Tensor,
    objective: Objective,
    settings: RoutingSettings,
) -> Forecast:
    """Count over some tokens that are no dreams. Targets are taken at temperature 1, which keeps their first token.

    Args:
        teacher1_NV, teacher2_NV: logits [N, V] of those who teach; None with one teacher.
        labels_N: column of the gold token, or IGNORE; int64 [N].
        row_N: row of each token, int64 [N].
    """
    evidence = gather_evidence(teacher1_NV, teacher2_NV, labels_N, settings.confidence)
    routing = route(evidence, labels_N, settings, None, row_N)
    other_NV = teacher1_NV if teacher2_NV is None else teacher2_NV
    firsts_N = [teacher_NV.argmax(-1) for teacher_NV in (teacher1_NV, other_NV)]
    unknown_N = (labels_N != IGNORE) & (firsts_N[0] != labels_N) & (firsts_N[1] != labels_N)
    wanted_NV = objective.beta * log_target(teacher1_NV, other_NV, routing.weight1_N, 1.0, objective.pooling).exp()
    wanted_NV = wanted_NV.where(taught(routing).unsqueeze(-1), 0.0)
    gold_N = routing.on(Route.GOLD).to(wanted_NV.dtype) * objective.beta * routing.gain_N.to(wanted_NV.dtype)
    gold_N += objective.alpha * examined(labels_N, routing, objective, None)
    place_N1 = labels_N.where(unknown_N, 0).unsqueeze(-1)
    wanted_NV = wanted_NV.scatter_add(-1, place_N1, gold_N.unsqueeze(-1))
    learned_N = (wanted_NV.argmax(-1) == labels_N) & (wanted_NV.amax(-1) > 0)
    return Forecast(int(unknown_N.sum()), int((unknown_N & ~learned_N).sum()))
