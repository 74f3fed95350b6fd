"""The output-head contract: ``head(final hidden state) == the model's own logits``, proved on a probe batch.

A teacher sends final hidden states (D numbers a token) instead of logits (V numbers), so the receiver must be able to
turn one into the other exactly: final norm inside the backbone, then weight, bias, scale and soft cap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from ladder.distill.student import Block, StudentHead
from ladder.errors import ModelError

TOLERANCE = 1e-4
"""Largest difference of logits on the probe batch, relative to their largest magnitude."""


@dataclass(frozen=True)
class Head:
    """A linear output head with optional bias, logit scale and soft cap.

    ``projection`` is the model's own layer (with its adapter, where it has one), so gradient flows into it where it is
    trained.
    """

    projection: nn.Module
    scale: float = 1.0
    cap: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Vocabulary size V (padding included) and hidden size D."""
        weight_VD = self.projection.get_parameter("weight")
        return weight_VD.shape[0], weight_VD.shape[1]

    def student(self, hidden_ND: Tensor) -> StudentHead:
        """This head over final hidden states [N, D], for the fused loss: each adapter on it is a product of its own.

        Raises:
            ModelError: the projection is neither linear nor linear with LoRA.
        """
        blocks = tuple(_blocks(self.projection, hidden_ND))
        return StudentHead(blocks, _plain(self.projection).bias, self.scale, self.cap)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] of final hidden states [N, D]."""
        logits_NV = self.projection(hidden_ND) * self.scale
        return logits_NV if self.cap is None else self.cap * torch.tanh(logits_NV / self.cap)


def _plain(projection: nn.Module) -> nn.Linear:
    """The linear layer itself, below the adapter that may lie on it."""
    linear = projection.get_base_layer() if isinstance(projection, LoraLayer) else projection
    if not isinstance(linear, nn.Linear):
        raise ModelError("the output head is not linear", where=type(linear).__name__)
    return linear


def _blocks(projection: nn.Module, hidden_ND: Tensor) -> Iterator[Block]:
    """The products that add up to the projection: h W^T, and (s h A^T) B^T for each active adapter."""
    yield Block(hidden_ND, _plain(projection).weight)
    if isinstance(projection, LoraLayer) and not projection.disable_adapters:
        for name in projection.active_adapters:
            if name in projection.lora_A:
                narrow_Nr = projection.lora_A[name](projection.lora_dropout[name](hidden_ND))
                yield Block(narrow_Nr * projection.scaling[name], projection.lora_B[name].weight)


def find_head(model: PreTrainedModel) -> Head:
    """The head of a causal language model, as its config describes it. Use ``prove_head`` before trusting it.

    Raises:
        ModelError: the model has no linear output embedding.
    """
    linear = model.get_output_embeddings()
    if not isinstance(getattr(linear, "weight", None), Tensor):
        raise ModelError("the model has no linear output head", where=type(model).__name__)
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(linear, float(scale), cap)


def hidden_states(model: PreTrainedModel, input_ids_BT: Tensor, attention: Tensor, position_ids_BT: Tensor) -> Tensor:
    """Final hidden states [B, T, D], after the backbone's last norm.

    ``attention`` is a [B, T] padding mask or a [B, 1, T, T] additive mask of a packed batch.
    """
    backbone = model.get_decoder()
    output = backbone(input_ids=input_ids_BT, attention_mask=attention, position_ids=position_ids_BT, use_cache=False)
    return output.last_hidden_state


@torch.no_grad()
def prove_head(model: PreTrainedModel, head: Head) -> float:
    """Largest difference between ``head(hidden)`` and the model's logits on a fixed probe batch, relative to the
    largest logit. At most ``TOLERANCE`` for a head that can be trusted."""
    device = next(model.parameters()).device
    vocabulary, _ = head.shape
    input_ids_BT = (torch.arange(24, device=device).reshape(2, 12) * 7919) % vocabulary
    mask_BT = torch.ones_like(input_ids_BT)
    positions_BT = torch.arange(12, device=device).expand(2, 12)
    ours = head.logits(hidden_states(model, input_ids_BT, mask_BT, positions_BT)).float()
    theirs = model(input_ids=input_ids_BT, attention_mask=mask_BT, position_ids=positions_BT).logits.float()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6)).item()


def trusted_head(model: PreTrainedModel) -> Head:
    """The proved head of a model.

    Raises:
        ModelError: applying the head to hidden states does not give the model's logits.
    """
    head = find_head(model)
    difference = prove_head(model, head)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"head(hidden states) differs from the model's logits by {difference:.2g} of the largest logit",
            where=type(model).__name__,
            remedy="set runtime.wire to logits, which sends whole logits instead of hidden states",
        )
    return head
