"""A plain fine-tuning step, and the same with the head products of two teachers whose hidden states are known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


class FineTuning:
    """Whole logits, cross-entropy, backward, clip to norm 1, torch's fused AdamW.

    Args:
        heads: [V, D] of teachers; for each, one [N,D]x[D,V] product of random hidden states into a buffer.
    """

    def __init__(self, student: PreTrainedModel, ids_BT: Tensor, lr: float, heads: tuple[Tensor, ...] = ()) -> None:
        self.student, self.ids_BT, self.heads = student.train(), ids_BT, heads
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=lr, fused=True)
        self.mask_BT = torch.ones_like(ids_BT)
        tokens = ids_BT[:, 1:].numel()
        self.said = [torch.randn(tokens, head_VD.shape[1]) for head_VD in heads]
        self.logits_NV = torch.empty(tokens, len(heads[0])) if heads else None

    def __call__(self) -> float:
        with torch.no_grad():
            for said_ND, head_VD in zip(self.said, self.heads, strict=True):
                torch.mm(said_ND, head_VD.T, out=self.logits_NV)
        logits_BTV = self.student(input_ids=self.ids_BT, attention_mask=self.mask_BT, use_cache=False).logits
        loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), self.ids_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
