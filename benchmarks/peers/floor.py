"""The floor of a loss: its head products alone, in float32, into buffers that are there already."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.lesson import Dataset

CHUNKS = (64, 128, 256, 512)
"""Tokens a chunk that are tried besides all tokens at once."""


class Floor:
    """K + 3 products, five for two teachers: [N,D]x[D,V] for each teacher and the student, then [N,V]x[V,D] and
    [V,N]x[N,D] for the student's backward. One fewer with a frozen head, which has no [V,N]x[N,D].

    All tokens at once, or in equal chunks. Each chunk's logits overwrite those of the chunk before, and one teacher's
    those of the other: nothing is kept that the next product does not read.
    """

    def __init__(self, dataset: Dataset, chunk: int, frozen_head: bool = False) -> None:
        self.chunk = min(chunk, len(dataset.hidden_ND))
        self.frozen_head = frozen_head
        self.hidden_ND, self.weight_VD = dataset.hidden_ND.detach(), dataset.weight_VD.detach()
        self.teachers = dataset.teachers
        self.logits_CV = torch.empty(self.chunk, len(self.weight_VD))
        self.grad_hidden_ND = torch.empty_like(self.hidden_ND)
        self.grad_weight_VD = torch.zeros_like(self.weight_VD)

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor, Tensor]:
        for start in range(0, len(self.hidden_ND), self.chunk):
            self._part(slice(start, start + self.chunk), first=start == 0)
        return self.grad_hidden_ND, self.grad_weight_VD

    def _part(self, rows: slice, first: bool) -> None:
        hidden_CD = self.hidden_ND[rows]
        logits_CV = self.logits_CV[: len(hidden_CD)]
        for said_ND, head_VD in self.teachers:
            torch.mm(said_ND[rows], head_VD.T, out=logits_CV)
        torch.mm(hidden_CD, self.weight_VD.T, out=logits_CV)
        torch.mm(logits_CV, self.weight_VD, out=self.grad_hidden_ND[rows])
        if not self.frozen_head:
            # With beta 0 the old content is not read, as a plain product would not.
            self.grad_weight_VD.addmm_(logits_CV.T, hidden_CD, beta=0 if first else 1)


def floors(dataset: Dataset, frozen_head: bool = False, limit: int | None = None) -> dict[str, Floor]:
    """The floor all at once, unless its [N, V] logits exceed ``limit`` bytes, and in chunks, by name."""
    tokens, vocabulary = len(dataset.hidden_ND), len(dataset.weight_VD)
    sizes = {f"chunks of {chunk}": chunk for chunk in CHUNKS if chunk < tokens}
    if limit is None or 4 * tokens * vocabulary <= limit:
        sizes["all at once"] = tokens
    return {name: Floor(dataset, chunk, frozen_head) for name, chunk in sizes.items()}
