"""Whether a recipe can teach what its teachers do not know: where does descent on the loss of a token end?

The student starts as a copy of teacher 1. Its logits of a few tokens are moved by gradient descent on the very loss of
the run, as if it could say anything about each token apart. Where the gold label does not come first even then, no
student will learn it from this recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladder.distill.objective import Objective, token_losses
from ladder.distill.probabilities import upcast
from ladder.distill.routing import Routing
from ladder.distill.vocabulary import IGNORE

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


def unknown(teacher1_NV: Tensor, teacher2_NV: Tensor | None, labels_N: Tensor) -> Tensor:
    """Tokens with a gold label that no teacher puts first, bool [N]."""
    wrong_N = labels_N != IGNORE
    for teacher_NV in (teacher1_NV, teacher2_NV):
        if teacher_NV is not None:
            wrong_N &= teacher_NV.argmax(-1) != labels_N
    return wrong_N


def forecast(
    teacher1_NV: Tensor, teacher2_NV: Tensor | None, labels_N: Tensor, routing: Routing, objective: Objective
) -> Forecast:
    """Count over tokens that no teacher knows (``unknown``). Holds a handful of tensors [N, V].

    Args:
        teacher1_NV, teacher2_NV: logits [N, V] of those who teach; None with one teacher.
        labels_N: column of the gold token, int64 [N].
        routing: of these tokens, in the run.
    """
    student_NV = upcast(teacher1_NV).clone().requires_grad_()
    optimizer = torch.optim.Adam([student_NV], lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        token_losses(student_NV, teacher1_NV, teacher2_NV, labels_N, routing, objective).loss.sum().backward()
        optimizer.step()
    return Forecast(len(labels_N), int((student_NV.argmax(-1) != labels_N).sum()))
