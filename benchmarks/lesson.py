"""The tensors of one loss: a student and teachers as hidden states with heads, and labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """N tokens. The student's two tensors are leaves that want a gradient."""

    hidden_ND: Tensor
    weight_VD: Tensor
    teachers: tuple[tuple[Tensor, Tensor], ...]
    labels_N: Tensor

    @property
    def nbytes(self) -> int:
        tensors = [self.hidden_ND, self.weight_VD, self.labels_N, *(one for pair in self.teachers for one in pair)]
        return sum(tensor.nbytes for tensor in tensors)

    def gradients(self, loss: Tensor, frozen_head: bool = False) -> tuple[Tensor, ...]:
        """Gradients of the student's hidden states and, unless it is frozen, head."""
        wanted = [self.hidden_ND] if frozen_head else [self.hidden_ND, self.weight_VD]
        return torch.autograd.grad(loss, wanted)


def make_lesson(tokens: int, hidden: int, vocabulary: int, seed: int = 0, teachers: int = 2) -> Dataset:
    """Related distributions, so that no route is empty: the student is near teacher 1, the others further off.

    The standard deviation of a token's logits is 2 to 16, so that some tokens are certain and some are open. Two labels
    in three are teacher 1's likeliest token, the others random.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    sharpness_N1 = 2 + 14 * torch.rand(tokens, 1, generator=generator)
    base_ND, base_VD = sharpness_N1 * normal(tokens, hidden), normal(vocabulary, hidden) / hidden**0.5
    far_N1 = 0.5 * sharpness_N1 * torch.rand(tokens, 1, generator=generator)

    def further() -> tuple[Tensor, Tensor]:
        return base_ND + far_N1 * normal(tokens, hidden), base_VD + 0.05 * normal(vocabulary, hidden) / hidden**0.5

    first, second = (base_ND, base_VD.clone()), further()
    labels_N = torch.randint(vocabulary, (tokens,), generator=generator)
    known_N = torch.rand(tokens, generator=generator) < 2 / 3
    likeliest_N = torch.cat([(part_ND @ base_VD.T).argmax(-1) for part_ND in base_ND.split(128)])
    hidden_ND = base_ND + 0.2 * normal(tokens, hidden)
    # Drawn last, so that two teachers and a student are the same whether or not there are more.
    others = [further() for _ in range(teachers - 2)]
    return Dataset(
        hidden_ND=hidden_ND.requires_grad_(),
        weight_VD=base_VD.requires_grad_(),
        teachers=(first, second, *others)[:teachers],
        labels_N=labels_N.where(~known_N, likeliest_N),
    )
