"""A step without a loss: backbones, head products and optimiser, and nothing between them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.lesson import Dataset
from benchmarks.peers.floor import Floor
from ladder.models.head import hidden_states


class Ideal:
    """Forward of both teachers' backbones, forward and backward of the student's, five head products, AdamW.

    The gradient that goes back into the backbone is what the products leave, so the weights wander; only the time is
    meant. Nothing is clipped, averaged or reported. AdamW is torch's fused one, the fastest that there is here.
    """

    def __init__(
        self, student: PreTrainedModel, teachers: tuple[PreTrainedModel, ...], ids_BT: Tensor, lr: float, chunk: int
    ) -> None:
        self.student, self.teachers, self.ids_BT = student.train(), teachers, ids_BT
        self.head = student.get_output_embeddings().weight
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=lr, fused=True)
        self.mask_BT = torch.ones_like(ids_BT)
        self.positions_BT = torch.arange(ids_BT.shape[1]).expand_as(ids_BT)
        heads = [teacher.get_output_embeddings().weight.detach() for teacher in teachers]
        hidden_ND = torch.zeros(ids_BT[:, 1:].numel(), self.head.shape[1])
        dataset = Dataset(hidden_ND, self.head, tuple((hidden_ND, head) for head in heads), ids_BT[:, 1:].flatten())
        self.floor = Floor(dataset, chunk)

    def __call__(self) -> None:
        with torch.no_grad():
            said = [self._read(teacher) for teacher in self.teachers]
        hidden_ND = self._read(self.student)
        self.floor.hidden_ND = hidden_ND.detach()
        self.floor.teachers = tuple((new, head) for new, (_, head) in zip(said, self.floor.teachers, strict=True))
        grad_ND, grad_VD = self.floor()
        # The embedding is the head: the backbone's backward adds to what the products left.
        self.head.grad = grad_VD
        hidden_ND.backward(grad_ND)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _read(self, model: PreTrainedModel) -> Tensor:
        hidden_BTD = hidden_states(model, self.ids_BT, self.mask_BT, self.positions_BT)
        return hidden_BTD[:, :-1].flatten(0, 1)
