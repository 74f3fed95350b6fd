"""The output head of a causal language model, found in a model or read out of a folder without the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ladder.distill import Block, StudentHead
from ladder.errors import ModelError
from ladder.models.digest import weight_files
from ladder.models.load import config_of, load_model


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


_RENAMED = {"lm_head": "embed_out"}
"""What GPT-NeoX (Pythia) calls its head in files."""


def load_head(folder: Path, dtype: str, device: str) -> Head:
    """The frozen head of a model folder. Nothing is proved here: whoever runs the model proves its head.

    A weight that has none of the expected names in the files (transformers translates many) is found by loading the
    whole model and letting go of its body.

    Raises:
        ModelError: the folder cannot be read, or its model has no linear head.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(folder), trust_remote_code=False)
    head, names = find_head(model), list(_names(model))
    stored = _stored(folder, {name for own in names for name in own})
    found = [next((stored[name] for name in own if name in stored), None) for own in names]
    if any(tensor is None for tensor in found):
        head = find_head(load_model(folder, dtype, device).requires_grad_(False))
        return replace(head, projection=_linear(head.linear.weight, head.linear.bias))
    weight_VD, *bias = (tensor.to(device, getattr(torch, dtype)) for tensor in found if tensor is not None)
    return replace(head, projection=_linear(weight_VD, *bias))


def deduplicated(heads: Mapping[int, Head], student: Head | None) -> dict[int, Head]:
    """The heads of the teachers by number, each of equal ones held once: a generation often kept the head of its
    parent. The student's own is held for them only where it is frozen, because theirs are."""
    frozen = student is not None and not any(value.requires_grad for value in student.linear.parameters())
    held = [student.linear] if student is not None and frozen else []
    found = {}
    for number, head in heads.items():
        linear = next((one for one in held if _equal(one, head.linear)), head.linear)
        held.append(linear)
        found[number] = replace(head, projection=linear) if linear is not head.linear else head
    return found


def _names(model: PreTrainedModel) -> Iterator[list[str]]:
    """What the weight of the output head may be called in a file, and its bias: its own name first, because a model
    with a matrix of its own for the head does not tie it, whatever its config says. Base models are saved without the
    prefix of their class."""
    layer = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules(remove_duplicate=False) if module is layer]
    layers += [_RENAMED[name] for name in layers if name in _RENAMED]
    for part, tensor in layer.named_parameters():
        tied = [name for name, value in model.named_parameters(remove_duplicate=False) if value is tensor]
        bare = [name.removeprefix(f"{model.base_model_prefix}.") for name in tied]
        yield [*(f"{name}.{part}" for name in layers), *tied, *bare]


def _stored(folder: Path, names: set[str]) -> dict[str, Tensor]:
    """Those of these tensors that the folder's files hold; nothing else is read."""
    found = {}
    try:
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as tensors:
                found.update({name: tensors.get_tensor(name) for name in names & set(tensors.keys())})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"unreadable weights: {error}", where=str(folder), remedy="restore this folder") from error
    return found


def _linear(weight_VD: Tensor, bias_V: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight_VD.shape[1], weight_VD.shape[0], bias=bias_V is not None, device="meta")
    linear.weight = nn.Parameter(weight_VD, requires_grad=False)
    if bias_V is not None:
        linear.bias = nn.Parameter(bias_V, requires_grad=False)
    return linear.eval()


def _equal(one: nn.Linear, other: nn.Linear) -> bool:
    pairs = list(zip((one.weight, one.bias), (other.weight, other.bias), strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in pairs if a is not None)
