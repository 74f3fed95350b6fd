"""LoRA through peft: train an adapter, ship the merged weights and keep the adapter beside them.

And one base model in memory for several generations, each of which is a stack of adapters on it: where a child is
trained as an adapter, its parent is the base itself or an adapter on it, and its grandparent is the base below. Parent,
grandparent and child then cost one model and three small adapters. Adapters that are active together are added up, so a
child on top of its parent's adapter starts as the parent.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ladder.distill import full_float32
from ladder.errors import ManifestError, ModelError, is_out_of_memory, said
from ladder.manifest import Lora
from ladder.models.digest import read_object, weight_files
from ladder.models.load import load_model


def load_quantized(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Load a causal language model for training adapters on it.

    Args:
        dtype: of the arithmetic, and of what is not quantised.
        device: a CUDA device.

    Raises:
        ModelError: the device is no GPU, or bitsandbytes is not installed.
    """
    check_quantization(device)
    weight_files(folder)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=config,
        device_map={"": device},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def check_quantization(device: str) -> None:
    """Whether a 4-bit base can be trained on here.

    Raises:
        ModelError: it cannot; says what is missing.
    """
    missing = []
    if not device.startswith("cuda") or not torch.cuda.is_available():
        missing.append(f"the student is on {device}, expected a CUDA GPU")
    if find_spec("bitsandbytes") is None:
        missing.append("bitsandbytes is not installed (pip install 'generation-ladder[qlora]')")
    if missing:
        raise ModelError("; ".join(missing), where="student.adapter.base", remedy="or write full")


ADAPTER = "adapter_model.safetensors"
STUDENT = "default"
"""Peft's name of the adapter that is trained; peft writes one of this name into the folder itself."""
_KERNEL = {"out_proj", "conv1d"}
_READ_BY_MODEL = {
    "falcon_h1": _KERNEL,
    "falcon_mamba": _KERNEL | {"dt_proj"},
    "jamba": {"dt_proj"},
    "mamba": _KERNEL | {"dt_proj"},
    "mamba2": _KERNEL,
    "nemotron_h": _KERNEL,
}
"""Layers that are never called, because the model, or the fast kernel in its place, takes their weight: an adapter
would learn nothing. Peft refuses out_proj and conv1d of these families."""
_REMEDY = "name linear layers of this model, or write all-linear, which leaves out what bears no adapter"


def add_adapter(model: PreTrainedModel | PeftModel, lora: Lora) -> PeftModel:
    """Freeze the model and add a trainable adapter, B = 0, so that the first forward equals that of what is there.

    ``all-linear`` means every linear layer that can bear one: routers that look like linear layers, layers whose
    weights the model reads itself, and those of one weight under several names are left out.

    Raises:
        ManifestError: ``target_modules`` names nothing in this model, a layer that bears no adapter, or one of two
            matrices that are tied.
    """
    inner = plain(model)
    barred = _barred(inner)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=(sorted(barred) or None) if lora.target_modules == "all-linear" else None,
        task_type="CAUSAL_LM",
    )
    ends = inner.get_input_embeddings(), inner.get_output_embeddings()
    tied = all(ends) and ends[0].weight is ends[1].weight
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Peft asks transformers by a name that goes in version 6.
            if isinstance(model, PeftModel):
                model.add_adapter(STUDENT, config)
                adapted = model
            else:
                adapted = get_peft_model(model, config, adapter_name=STUDENT)
    except ValueError as error:
        raise ManifestError(said(error), where="student.adapter.target_modules", remedy=_REMEDY) from error
    # Merging would add the one matrix's adapter to both, so the model that ships would not be the one that was trained.
    if tied and (inner.get_input_embeddings() is not ends[0] or inner.get_output_embeddings() is not ends[1]):
        raise ManifestError(
            "names the embedding or the output head of a model in which the two are tied",
            where="student.adapter.target_modules",
            remedy="leave both out, or use all-linear, which does",
        )
    _check_layers(inner, barred)
    return adapted


def rehearse(config: PretrainedConfig, lora: Lora) -> int:
    """Add the adapter to a model that has shapes and no numbers; returns how many numbers would be trained.

    Every adapted layer is run, and not the model: masks and routers of most architectures need numbers.

    Raises:
        ManifestError: as ``add_adapter``.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        adapted = add_adapter(model, lora)
    return sum(value.numel() for value in adapted.parameters() if value.requires_grad)


def _barred(model: PreTrainedModel) -> dict[str, str]:
    """The linear layers that can bear no adapter, by name, and why."""
    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)}
    shared = Counter(id(one.weight) for one in linear.values())
    read = _READ_BY_MODEL.get(model.config.model_type, set())
    found = {}
    for name, one in linear.items():
        if name.rpartition(".")[2] in read:
            found[name] = "the model, or its fast kernel, takes its weight and does not call it"
        elif shared[id(one.weight)] > 1:
            found[name] = "another layer has the same weight, and merging would add the adapters of both to it"
        elif not _gives_a_product(one):
            found[name] = "it gives more than a product, as a router does"
    return found


def _gives_a_product(layer: nn.Linear | Conv1D) -> bool:
    """False for what is built on a linear layer and gives something else, as the routers of some mixtures of experts
    do; a quantised layer is no such thing."""
    known = (nn.Linear.forward, Conv1D.forward)
    if type(layer).forward in known or not type(layer).__module__.startswith("transformers."):
        return True
    inputs = layer.weight.shape[1 if isinstance(layer, nn.Linear) else 0]
    return isinstance(_output(layer, inputs, layer.weight), torch.Tensor)


@torch.no_grad()
def _output(layer: nn.Module, inputs: int, like: torch.Tensor) -> object:
    return layer(torch.zeros(1, 1, inputs, dtype=like.dtype, device=like.device))


def _check_layers(model: PreTrainedModel, barred: Mapping[str, str]) -> None:
    """Run every adapted layer once.

    Raises:
        ManifestError: names the first that bears no adapter.
    """
    for name, layer in _adapted(model):
        why = barred.get(name) or _complaint(layer)
        if why:
            raise ManifestError(
                f"{name} ({type(layer.get_base_layer()).__name__}) bears no adapter: {why}",
                where="student.adapter.target_modules",
                remedy=_REMEDY,
            )


def _adapted(model: PreTrainedModel) -> Iterator[tuple[str, LoraLinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def _complaint(layer: LoraLinear) -> str:
    """What goes wrong when the layer is run; empty if nothing does. Dropout draws no random numbers of the run."""
    device = layer.weight.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            out = _output(layer, layer.in_features, layer.weight)
    except Exception as error:  # whatever a layer raises that is not what it looks like
        if is_out_of_memory(error):
            raise
        return said(error)
    return "" if isinstance(out, torch.Tensor) else f"it gives {type(out).__name__}"


@full_float32()
def merged(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The base with the adapter of a peft folder merged into its weights, by float32 products with all their bits: what
    is merged is small beside the weights. The base itself is used up."""
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


@full_float32()
def merged_foreign(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """As ``merged``, for an adapter that somebody else made: it must fit the base with all its tensors, and be one that
    can be merged. Where it brings a larger embedding, the base's grows first.

    Raises:
        ModelError: it does not fit, or cannot be merged; or its weights are pickled.
    """
    kind = read_object(adapter / "adapter_config.json").get("peft_type")
    shapes = adapter_shapes(adapter)
    rows = max((shape[0] for name, shape in shapes.items() if _is_embedding(name)), default=0)
    try:
        if rows > base.get_input_embeddings().weight.shape[0]:
            base.resize_token_embeddings(rows, mean_resizing=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of what is missing, which is told below.
            adapted = PeftModel.from_pretrained(base, adapter)
        wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        misfits = sorted((wanted - shapes.keys()) | {name for name in shapes.keys() - wanted if "lora" in name.lower()})
        if not misfits:
            whole: PreTrainedModel = adapted.merge_and_unload()
            return whole
    except Exception as error:  # an adapter's config can name anything
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"an adapter of kind {kind} that cannot be merged into this base: {said(error)}",
            where=str(adapter),
            remedy=f"--base must hold the model that it was trained on ({_made_for(adapter)})",
        ) from error
    raise ModelError(
        f"the adapter does not fit the base: {misfits[:3]}",
        where=str(adapter),
        remedy=f"--base must hold the model that it was trained on ({_made_for(adapter)})",
    )


def adapter_shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of an adapter folder by its name.

    Raises:
        ModelError: it has no safetensors, or they are malformed. Pickled weights are never opened.
    """
    path = adapter / ADAPTER
    if not path.is_file():
        raise ModelError(
            f"no {ADAPTER}",
            where=str(adapter),
            remedy="save the adapter with peft's save_pretrained (pickled weights are never opened)",
        )
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in list(tensors.keys())}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"unreadable weights: {said(error)}", where=str(path), remedy="restore this file") from error


def _is_embedding(name: str) -> bool:
    return name.endswith((".embed_tokens.weight", ".wte.weight", ".embed_in.weight", ".lm_head.weight"))


def _made_for(adapter: Path) -> str:
    return str(read_object(adapter / "adapter_config.json").get("base_model_name_or_path") or "it names none")


def plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside, with the adapter's layers in place where there are any."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


_ENDS = ("lm_head", "embed_out", "embed_tokens", "wte", "embed_in")
"""Names of embeddings and heads: an adapter there would have to be switched on the receiver's side as well."""


@dataclass(frozen=True)
class Stack:
    """A generation as adapters on a base.

    Args:
        base: Hugging Face folder.
        adapters: peft folders, in the order in which the generations came.
    """

    base: Path
    adapters: tuple[Path, ...] = ()


def can_share(adapter: Path) -> bool:
    """Whether this adapter leaves embeddings and output head alone."""
    targets = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("target_modules") or []
    names = [targets] if isinstance(targets, str) else targets
    return not any(name.rpartition(".")[2] in _ENDS for name in names)


class SharedBase:
    """The base, and the adapters that are loaded on it."""

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        self.folder = folder
        self.plain: PreTrainedModel = load_model(folder, dtype, device).requires_grad_(False)
        self._peft: PeftModel | None = None
        self._names: dict[Path, str] = {}
        self._student: tuple[str, ...] = ()

    def model_of(self, stack: Stack) -> SharedModel:
        """A frozen generation on this base."""
        return SharedModel(self, tuple(self._load(folder) for folder in stack.adapters))

    def learn(self, stack: Stack, lora: Lora, seed: int) -> PeftModel:
        """A trainable adapter on top of a stack; takes the place of the one that was trained here before."""
        below = tuple(self._load(folder) for folder in stack.adapters)
        if self._peft is not None and STUDENT in self._peft.peft_config:
            self._peft.delete_adapter(STUDENT)
        torch.manual_seed(seed)
        self._peft = add_adapter(self.plain if self._peft is None else self._peft, lora)
        self._student = (*below, STUDENT)
        self._activate(self._student)
        return self._peft

    @contextmanager
    def speaking(self, names: Sequence[str]) -> Iterator[PreTrainedModel]:
        """The model as another generation: these adapters alone, frozen, without dropout; then the student again."""
        training = self.plain.training
        self.plain.eval()
        self._activate(names)
        try:
            yield self.plain
        finally:
            self._activate(self._student)
            self.plain.train(training)

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The base's tensors, under the names that they had before any adapter, and those of these adapters."""
        others = ({STUDENT} | set(self._names.values())) - set(names)
        return {
            name.replace(".base_layer.", "."): value
            for name, value in self.plain.state_dict().items()
            if not others.intersection(name.split("."))
        }

    def _load(self, folder: Path) -> str:
        if folder not in self._names:
            name = f"ancestor{len(self._names)}"
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.plain, folder, adapter_name=name)
            else:
                self._peft.load_adapter(folder, adapter_name=name)
            self._names[folder] = name
        return self._names[folder]

    def _activate(self, names: Sequence[str]) -> None:
        """Make these adapters the ones that are added; only the student's own can require gradient."""
        if self._peft is None:
            return
        for layer in self._layers():
            layer.set_adapter(list(names), inference_mode=True)
        for name, value in self.plain.named_parameters():
            value.requires_grad_(STUDENT in names and STUDENT in name.split("."))

    def _layers(self) -> Iterator[BaseTunerLayer]:
        return (module for module in self.plain.modules() if isinstance(module, BaseTunerLayer))


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A frozen generation that shares its base."""

    base: SharedBase
    names: tuple[str, ...]

    @contextmanager
    def speaking(self) -> Iterator[PreTrainedModel]:
        """Its model, for as long as it speaks."""
        with self.base.speaking(self.names) as model:
            yield model

    def tensors(self) -> Mapping[str, Tensor]:
        """What it is made of."""
        return self.base.tensors(self.names)


@dataclass(frozen=True, eq=False)
class WholeModel:
    """A frozen generation with a model of its own."""

    model: PreTrainedModel

    @contextmanager
    def speaking(self) -> Iterator[PreTrainedModel]:
        yield self.model

    def tensors(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()


TeacherModel = SharedModel | WholeModel
