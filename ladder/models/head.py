"""The output head of a causal language model, found in a model or read out of a folder without the body, and its proof:
``head(final hidden state) == the model's own logits``, on probe batches.

A model whose head is not proved speaks and learns through its whole logits, which costs V/D times as much; whoever
takes that way says so with the doubt of :class:`Proof`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ladder.distill import Block, StudentHead, full_float32
from ladder.errors import ModelError, is_out_of_memory
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


@dataclass(frozen=True)
class Proof:
    """A head that can be trusted, or why there is none.

    Args:
        head: the proved head, or None.
        doubt: what is wrong, with the difference and the class of the model; empty where there is a head.
    """

    head: Head | None
    doubt: str = ""


@dataclass(frozen=True)
class Difference:
    """How far a head's logits are from the model's own.

    Args:
        worst: of one logit, relative to the largest of all.
        norm: of one token, ||a - b|| / ||b|| over the vocabulary; the largest of all tokens. Rounding averages out
            here, so it sees a wrong scale that ``worst`` would take for rounding.
    """

    worst: float
    norm: float

    def within(self, dtype: torch.dtype) -> bool:
        """Whether rounding explains it: the model rounds its logits to its dtype, with scale and cap up to four times,
        by half an eps each; the head is computed in float32."""
        eps = torch.finfo(dtype).eps
        return self.worst <= max(1e-4, 2 * eps) and self.norm <= max(1e-4, eps)


@full_float32()
def prove(model: PreTrainedModel) -> Proof:
    """The head of a model if it gives the model's own logits, in the dtype that the model computes in, but for TF32:
    it would round backbone and head each in its own way, and a sound head would be doubted.

    Raises:
        ModelError: the model's logits are not finite.
    """
    try:
        head = find_head(model)
    except ModelError as error:
        return Proof(None, str(error))
    name, probes = type(model).__name__, list(_probes(model))
    expected = [_logits(model, probe) for probe in probes]
    try:
        differences = [_difference(model, head, probe, one) for probe, one in zip(probes, expected, strict=True)]
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return Proof(None, f"{name}: its backbone gives no hidden states for its head: {error}")
    worst, norm = max(one.worst for one in differences), max(one.norm for one in differences)
    if all(one.within(model.dtype) for one in differences):
        return Proof(head)
    return Proof(
        None,
        f"{name}: head(hidden states) differs from the model's logits by {worst:.2g} of the largest logit, "
        f"and by {norm:.2g} of a token's logits together",
    )


@dataclass(frozen=True, eq=False)
class _Probe:
    """Sequences [B, T], padded on the right."""

    input_ids_BT: Tensor
    mask_BT: Tensor
    position_ids_BT: Tensor


def _probes(model: PreTrainedModel) -> Iterator[_Probe]:
    """Two whole sequences, and a batch of other tokens: one whole, one padded that starts late, and one lone token."""
    yield _probe(model, 7919, (12, 12), (0, 0))
    yield _probe(model, 104729, (9, 4, 1), (0, 3, 0))


def _probe(model: PreTrainedModel, stride: int, lengths: tuple[int, ...], starts: tuple[int, ...]) -> _Probe:
    rows, width, vocabulary = len(lengths), max(lengths), model.config.get_text_config().vocab_size
    grid_BT = torch.arange(rows * width).reshape(rows, width) * stride % vocabulary
    place_T, length_B1 = torch.arange(width), torch.tensor(lengths).unsqueeze(-1)
    mask_BT = (place_T < length_B1).long()
    position_BT = (place_T + torch.tensor(starts).unsqueeze(-1)) * mask_BT
    return _Probe(*(part.to(model.device) for part in (grid_BT, mask_BT, position_BT)))


@torch.no_grad()
def _logits(model: PreTrainedModel, probe: _Probe) -> Tensor:
    """The model's own logits of the n tokens that are no padding, float32 [n, V]."""
    said = model(input_ids=probe.input_ids_BT, attention_mask=probe.mask_BT, position_ids=probe.position_ids_BT)
    logits_nV = said.logits[probe.mask_BT.bool()].float()
    if not logits_nV.isfinite().all():
        raise ModelError(
            "its logits are not finite numbers",
            where=type(model).__name__,
            remedy="the weights are broken, or its dtype is too narrow for it",
        )
    return logits_nV


@torch.no_grad()
def _difference(model: PreTrainedModel, head: Head, probe: _Probe, expected_nV: Tensor) -> Difference:
    hidden_BTD = hidden_states(model, probe.input_ids_BT, probe.mask_BT, probe.position_ids_BT)
    gap_nV = head.logits(hidden_BTD[probe.mask_BT.bool()]).float() - expected_nV
    worst = gap_nV.abs().max() / expected_nV.abs().max().clamp_min(1e-6)
    return Difference(worst.item(), (gap_nV.norm(dim=-1) / expected_nV.norm(dim=-1).clamp_min(1e-6)).max().item())
