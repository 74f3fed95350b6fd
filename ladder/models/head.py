"""The output head of a causal language model: what turns a final hidden state into logits.

A teacher sends final hidden states (D numbers a token) instead of logits (V numbers), so the receiver must be able to
turn one into the other exactly: final norm inside the backbone, then weight, bias, scale and soft cap. Use
``ladder.models.proof`` before trusting a head.
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
    def linear(self) -> nn.Linear:
        """The linear layer itself, below the adapter that may lie on it.

        Raises:
            ModelError: the projection is neither linear nor linear with LoRA.
        """
        linear = self.projection.get_base_layer() if isinstance(self.projection, LoraLayer) else self.projection
        if not isinstance(linear, nn.Linear):
            raise ModelError("the output head is not linear", where=type(linear).__name__)
        return linear

    @property
    def shape(self) -> tuple[int, int]:
        """Vocabulary size V (padding included) and hidden size D."""
        return self.linear.out_features, self.linear.in_features

    def student(self, hidden_ND: Tensor) -> StudentHead:
        """This head over final hidden states [N, D], for the fused loss: each adapter on it is a product of its own.

        Raises:
            ModelError: the projection is neither linear nor linear with LoRA.
        """
        return StudentHead(tuple(self._blocks(hidden_ND)), self.linear.bias, self.scale, self.cap)

    @torch.no_grad()
    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits [N, V] of final hidden states [N, D], in float32 at least; without gradient."""
        dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
        out_NV = torch.empty(len(hidden_ND), self.shape[0], dtype=dtype, device=hidden_ND.device)
        return self.student(hidden_ND).logits(torch.arange(len(hidden_ND), device=hidden_ND.device), out_NV)

    def _blocks(self, hidden_ND: Tensor) -> Iterator[Block]:
        """The products that add up to the projection: h W^T, and (s h A^T) B^T for each active adapter."""
        yield Block(hidden_ND, self.linear.weight)
        if isinstance(self.projection, LoraLayer) and not self.projection.disable_adapters:
            for name in self.projection.active_adapters:
                if name in self.projection.lora_A:
                    narrow = self.projection.lora_A[name]
                    input_ND = self.projection.lora_dropout[name](hidden_ND).to(narrow.weight.dtype)
                    narrow_Nr = narrow(input_ND) * self.projection.scaling[name]
                    yield Block(narrow_Nr, self.projection.lora_B[name].weight)


def find_head(model: PreTrainedModel) -> Head:
    """The head of a causal language model, as its config describes it.

    Raises:
        ModelError: the model has no linear output embedding.
    """
    layer = model.get_output_embeddings()
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise ModelError("the model has no linear output head", where=type(model).__name__)
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    head = Head(layer, float(scale), getattr(config, "final_logit_softcapping", None))
    _ = head.linear
    return head


def hidden_states(model: PreTrainedModel, input_ids_BT: Tensor, attention: Tensor, position_ids_BT: Tensor) -> Tensor:
    """Final hidden states [B, T, D], after the backbone's last norm.

    ``attention`` is a [B, T] padding mask or a [B, 1, T, T] additive mask of a packed batch.
    """
    backbone = model.get_decoder()
    output = backbone(input_ids=input_ids_BT, attention_mask=attention, position_ids=position_ids_BT, use_cache=False)
    return output.last_hidden_state
