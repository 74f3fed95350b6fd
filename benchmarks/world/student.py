"""The seed's small student: attention of few columns, a frozen low-rank head that it shares with its teachers, and a
head that says how sure it is. With ordinary autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.world.bigram import CONTEXT, V

D, LAYERS, RANK, COLUMNS = 64, 4, 32, 16
"""Width, blocks, rank of the head, and columns of queries and keys."""
SURE = 6.0
"""Logarithm of a precision: at most this, at least its negative."""


class Attention(nn.Module):
    """One causal head whose queries and keys have few columns, of which the first ``kept`` are used."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.query, self.key = nn.Linear(D, COLUMNS, bias=False), nn.Linear(D, COLUMNS, bias=False)
        self.value, self.out = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        query_BTC, key_BTC = self.query(x_BTD)[..., : self.kept], self.key(x_BTD)[..., : self.kept]
        return self.out(F.scaled_dot_product_attention(query_BTC, key_BTC, self.value(x_BTD), is_causal=True))


class Layer(nn.Module):
    def __init__(self, kept: int) -> None:
        super().__init__()
        self.attention, self.before, self.between = Attention(kept), nn.LayerNorm(D), nn.LayerNorm(D)
        self.feed = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.before(x_BTD))
        return x_BTD + self.feed(self.between(x_BTD))


class Student(nn.Module):
    """Contexts [n, 8] to a mean [n, r] and a variance [n, r] of the last position; logits are mean x head.

    Args:
        head_RV: frozen; :func:`shared_head`.
        kept: columns of queries and keys that are used, 1 to 16.
    """

    head_RV: Tensor

    def __init__(self, head_RV: Tensor, kept: int = COLUMNS) -> None:
        super().__init__()
        self.register_buffer("head_RV", head_RV.float())
        self.embedding, self.position = nn.Embedding(V, D), nn.Parameter(torch.zeros(CONTEXT, D))
        self.layers, self.norm = nn.Sequential(*(Layer(kept) for _ in range(LAYERS))), nn.LayerNorm(D)
        self.mean, self.log_precision = nn.Linear(D, len(head_RV)), nn.Linear(D, len(head_RV))

    def forward(self, contexts_nT: Tensor) -> tuple[Tensor, Tensor]:
        x_nTD = self.embedding(contexts_nT) + self.position
        hidden_nD = self.norm(self.layers(x_nTD))[:, -1]
        precision_nR = self.log_precision(hidden_nD).clamp(-SURE, SURE).exp() + 1e-6
        return self.mean(hidden_nD), 1 / precision_nR

    @torch.no_grad()
    def log_q(self, contexts_nT: Tensor) -> Tensor:
        """ln q(next | context), [n, V]."""
        mean_nR, _ = self(contexts_nT)
        return (mean_nR @ self.head_RV).log_softmax(-1)


def shared_head(teachers: Sequence[Tensor]) -> Tensor:
    """A head [r, V] for all: the directions in which the mean of the teachers' logits [V, V] varies most."""
    mean_VV = torch.stack(list(teachers)).mean(0)
    centred_VV = mean_VV - mean_VV.mean(-1, keepdim=True)
    _, _, directions_VV = torch.linalg.svd(centred_VV)
    return directions_VV[:RANK] * V**0.5 / 4
