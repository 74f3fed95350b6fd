"""ladder's loss of teachers, each way behind one function: the dense reference and the fused one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.lesson import Dataset, make_lesson
from ladder.distill import (
    Objective,
    Routing,
    RoutingSettings,
    columns,
    gather_evidence,
    reduction_weights,
    route,
    route_shares,
    source_counts,
    token_losses,
)
from ladder.distill.fused import FusedLoss
from ladder.distill.kernels import has_compiler
from ladder.distill.student import Block, StudentHead
from ladder.distill.tokens import Tokens
from ladder.models.head import Head
from ladder.teachers.source import HiddenSource

OBJECTIVE = Objective(alpha=0.1, beta=0.9, temperature=2.0, direction="forward", pooling="probabilities")
ROUTINGS = ("agreement", "surprise")
DENSE_TENSORS = 20
"""[N, V] float32 tensors that the dense reference holds at its peak: 18 were measured."""

Said = Sequence[tuple[Tensor, Tensor]]
"""Hidden states [N, D] and head [V, D] of each teacher."""


def dense_loss(
    hidden_ND: Tensor, weight_VD: Tensor, said: Said, labels_N: Tensor, routing: str = "agreement"
) -> Tensor:
    """The reference: whole logits, ``token_losses``, the mean over trained tokens."""
    with torch.no_grad():
        teachers = [values_ND @ head_VD.T for values_ND, head_VD in said]
    routes = _routes(teachers, labels_N, routing)
    losses = token_losses(hidden_ND @ weight_VD.T, teachers, labels_N, routes, OBJECTIVE)
    source_N = torch.zeros_like(labels_N)
    counts_S = source_counts(routes.trained_N, source_N, 1)
    return (reduction_weights(routes.trained_N, source_N, counts_S, torch.ones(1)) * losses.loss).sum()


def fused_loss(
    hidden_ND: Tensor, weight_VD: Tensor, said: Said, labels_N: Tensor, routing: str = "agreement"
) -> Tensor:
    """The fused loss over the sources that the trainer uses, with its own chunks, compiled where it can be."""
    size = len(weight_VD)
    settings = RoutingSettings(routing=routing)
    fused = FusedLoss(OBJECTIVE, settings, size, compile=has_compiler("cpu"))
    tokens = Tokens.of(labels_N, torch.zeros_like(labels_N), torch.arange(len(labels_N)), columns(size, size))
    sources = [_source(*pair) for pair in said]
    ahead = fused.route_ahead(tokens, sources)
    source_N = torch.zeros_like(labels_N)
    weight_N = reduction_weights(ahead.trained_N, source_N, source_counts(ahead.trained_N, source_N, 1), torch.ones(1))
    return fused(StudentHead((Block(hidden_ND, weight_VD),)), sources, tokens, ahead, weight_N).total


def _source(hidden_ND: Tensor, weight_VD: Tensor) -> HiddenSource:
    """A teacher that spoke on every token, without a copy of its head."""
    projection = nn.Linear(*reversed(weight_VD.shape), bias=False, device="meta")
    projection.weight = nn.Parameter(weight_VD, requires_grad=False)
    return HiddenSource(hidden_ND, Head(projection), np.arange(len(hidden_ND)), len(hidden_ND))


def disagreement(hidden: int, vocabulary: int, routing: str, tokens: int = 64) -> dict[str, float]:
    """How far the two losses are apart on a small lesson: relative, and norm-wise for the gradients."""
    dataset = make_lesson(tokens, hidden, vocabulary, seed=2)
    found = []
    for loss in (fused_loss, dense_loss):
        value = loss(dataset.hidden_ND, dataset.weight_VD, dataset.teachers, dataset.labels_N, routing)
        found.append((value.detach(), *dataset.gradients(value)))
    names = ("loss", "gradient of hidden states", "gradient of head")
    pairs = zip(names, *found, strict=True)
    return {name: float(f"{((ours - dense).norm() / dense.norm()).item():.1e}") for name, ours, dense in pairs}


def dense_bytes(tokens: int, vocabulary: int) -> int:
    """What the dense reference may need, for the decision to skip it."""
    return DENSE_TENSORS * 4 * tokens * vocabulary


def shares_of_routes(dataset: Dataset, routing: str, sample: int = 256) -> dict[str, float]:
    """Which part of the first tokens takes each route: what the loss was timed on."""
    labels_N = dataset.labels_N[:sample]
    routes = _routes([said_ND[:sample] @ head_VD.T for said_ND, head_VD in dataset.teachers], labels_N, routing)
    return {name: round(count / len(labels_N), 3) for name, count in route_shares(routes.route_N).items() if count}


def _routes(teachers: Sequence[Tensor], labels_N: Tensor, routing: str) -> Routing:
    settings = RoutingSettings(routing=routing)
    return route(gather_evidence(teachers, labels_N, settings.confidence), labels_N, settings)
