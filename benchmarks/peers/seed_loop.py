"""The seed's training loop as its sketch writes it: dense, by batch, with its own divergences.

It is written to be timed, not to be used. What the sketch computes is kept, also where it is wrong: Jensen-Shannon with
the arguments of ``kl_div`` the wrong way round and divided by rows only, labels that are not shifted, targets at
temperature 1 for a student at 2, a regulariser of weight 0 that is computed all the same.

Four things are mended, because the sketch does not run without: a confidence per token is averaged where one number is
compared, and gets an axis where it multiplies a distribution; cross-entropy gets flat logits; the threshold of the
regulariser, which the sketch leaves undefined, is that of the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHA, BETA, GAMMA, TEMPERATURE = 0.1, 0.9, 0.0, 2.0
AGREEMENT, CONFIDENT, GOLD_WEIGHT = 0.1, 0.8, 0.5


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    middle = 0.5 * (p + q)
    halves = (F.kl_div(side.log(), middle, reduction="batchmean") for side in (p, q))
    return 0.5 * sum(halves)


def choose(logits1: Tensor, logits2: Tensor, labels: Tensor) -> tuple[Tensor, float, str]:
    """The target [B, T, V] of the whole batch, its weight, and the route's name in the sketch."""
    p1, p2 = F.softmax(logits1, dim=-1), F.softmax(logits2, dim=-1)
    confidence1, confidence2 = (p.max(dim=-1).values.unsqueeze(-1) for p in (p1, p2))
    if jensen_shannon(p1, p2) < AGREEMENT:
        share1 = confidence1 / (confidence1 + confidence2)
        share2 = confidence2 / (confidence1 + confidence2)
        return share1 * p1 + share2 * p2, 1.0, "BLENDED"
    if confidence1.mean() > CONFIDENT:
        return p1, 1.0, "T1_ONLY"
    return F.one_hot(labels, num_classes=p1.shape[-1]).float(), GOLD_WEIGHT, "GOLD_FALLBACK"


def regularizer(logits1: Tensor, logits2: Tensor, student: Tensor) -> Tensor | float:
    p1, p2 = F.softmax(logits1, dim=-1), F.softmax(logits2, dim=-1)
    divergence = jensen_shannon(p1, p2)
    if divergence > AGREEMENT:
        return 0.0
    return (1 - divergence) * F.kl_div(F.log_softmax(student, dim=-1), p1, reduction="batchmean")


class Average:
    """The sketch's moving average: a new tensor for every parameter in every step."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.model, self.decay = model, decay
        self.shadow = {name: value.data.clone() for name, value in model.named_parameters()}

    def update(self) -> None:
        for name, value in self.model.named_parameters():
            self.shadow[name] = self.decay * self.shadow[name] + (1 - self.decay) * value.data


@dataclass
class SeedLoop:
    """One batch, over and over."""

    student: nn.Module
    teacher1: nn.Module
    teacher2: nn.Module
    ids_BT: Tensor
    lr: float
    strategy: str = ""

    def __post_init__(self) -> None:
        self.student.train()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=self.lr)
        self.average = Average(self.student)

    def __call__(self) -> None:
        with torch.no_grad():
            logits1, logits2 = (teacher(self.ids_BT).logits for teacher in (self.teacher1, self.teacher2))
        student = self.student(self.ids_BT).logits
        target, weight, self.strategy = choose(logits1, logits2, self.ids_BT)
        ce: Tensor | float = 0.0
        if self.strategy == "GOLD_FALLBACK":
            ce = F.cross_entropy(student.flatten(0, 1), self.ids_BT.flatten())
        kd = F.kl_div(F.log_softmax(student / TEMPERATURE, dim=-1), target, reduction="batchmean")
        loss = weight * (ALPHA * ce + BETA * kd + GAMMA * regularizer(logits1, logits2, student))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update()
        loss.item()
