"""Adapters through peft: train one, ship the merged weights and keep the adapter beside them.

LoRA adds a product to a matrix. DoRA (arXiv:2402.09353) learns the length of each row of that sum as well. OSF,
orthogonal subspace fine-tuning (arXiv:2504.07097), takes the matrix apart, W = U S V, keeps the strongest singular
directions and trains the weakest; peft projects the gradients of their vectors off the kept ones, and an optimiser that
scales each number by itself leaves that space.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from math import floor
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from peft import LoraConfig, OSFConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.osf import Linear as OsfLinear
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ladder.distill import full_float32
from ladder.errors import ManifestError, ModelError, is_out_of_memory, said
from ladder.manifest import Adapter, AdapterKind
from ladder.models.digest import read_object, weight_files


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
_TARGETS = "student.adapter.target_modules"
_REMEDY = "name linear layers of this model, or write all-linear, which leaves out what bears no adapter"


Tuner = Literal["lora", "osf"]
"""Peft's families of adapters: one model bears those of one."""


def tuner_of(kind: AdapterKind) -> Tuner:
    """DoRA is a LoRA with one vector more."""
    return "osf" if kind == "osf" else "lora"


def add_adapter(model: PreTrainedModel | PeftModel, adapter: Adapter) -> PeftModel:
    """Freeze the model and add a trainable adapter that changes nothing yet: the first forward equals that of what is
    there, with OSF to the rounding of two products that cancel.

    ``all-linear`` means every linear layer that can bear one: routers that look like linear layers, layers whose
    weights the model reads itself, and those of one weight under several names are left out.

    Raises:
        ManifestError: ``target_modules`` names nothing in this model, a layer that bears no adapter of this kind, or
            one of two matrices that are tied; or nothing of a matrix would be kept by ``unfreeze_rank_ratio``.
    """
    inner = plain(model)
    barred = _barred(inner)
    config = _config(inner, adapter, barred)
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
        raise ManifestError(said(error), where=_TARGETS, remedy=_REMEDY) from error
    if inner.get_input_embeddings() is not ends[0] or inner.get_output_embeddings() is not ends[1]:
        _check_ends(adapter.kind, tied)
    _check_layers(inner, barred)
    return adapted


def _check_ends(kind: AdapterKind, tied: bool) -> None:
    """Whether embedding or output head may bear an adapter.

    Raises:
        ManifestError: they may not.
    """
    # Merging would add the one matrix's adapter to both, so the model that ships would not be the one that was trained.
    if tied:
        message = "names the embedding or the output head of a model in which the two are tied"
        raise ManifestError(message, where=_TARGETS, remedy="leave both out, or use all-linear, which does")
    # The fused loss reads the head as a sum of products (``ladder.models.head``).
    if kind != "lora":
        message = f"names the embedding or the output head, which kind {kind} cannot move"
        raise ManifestError(message, where=_TARGETS, remedy="leave both out, use all-linear, or write kind: lora")


def _config(model: PreTrainedModel, adapter: Adapter, barred: Mapping[str, str]) -> PeftConfig:
    """What peft is told.

    Raises:
        ManifestError: OSF would get a layer that it cannot take apart.
    """
    if adapter.kind == "osf":
        return OSFConfig(
            effective_rank=1.0 - adapter.unfreeze_rank_ratio,  # What peft calls so is kept.
            target_modules=_taken_apart(model, adapter, barred),
            task_type="CAUSAL_LM",
        )
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.kind == "dora",
        target_modules=adapter.target_modules,
        exclude_modules=(sorted(barred) or None) if adapter.target_modules == "all-linear" else None,
        task_type="CAUSAL_LM",
    )


def _taken_apart(model: PreTrainedModel, adapter: Adapter, barred: Mapping[str, str]) -> list[str]:
    """The names of the matrices that OSF gets: peft passes over in silence what it cannot take apart.

    Raises:
        ManifestError: a layer is not ``nn.Linear``, or so small that nothing of it would be kept.
    """
    everything, head = adapter.target_modules == "all-linear", model.get_output_embeddings()
    linear = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)}
    if everything:
        found = {name: one for name, one in linear.items() if name not in barred and one is not head}
    else:
        ends = tuple(f".{target}" for target in adapter.target_modules)
        found = {name: one for name, one in model.named_modules() if f".{name}".endswith(ends)}
    for name, layer in found.items():
        if not isinstance(layer, nn.Linear):
            kind = type(layer).__name__
            message = f"{name} ({kind}) cannot be taken apart by osf, which wants nn.Linear"
            raise ManifestError(message, where=_TARGETS, remedy="name linear layers of this model, or write kind: lora")
    smallest, name = min(((min(layer.weight.shape), name) for name, layer in found.items()), default=(0, ""))
    if name and int(smallest * (1.0 - adapter.unfreeze_rank_ratio)) == 0:
        message = f"found {adapter.unfreeze_rank_ratio}: of {name} with {smallest} directions nothing would be kept"
        most = floor(100 * (1 - 1 / smallest)) / 100
        remedy = f"write at most {most}" if most else "leave that layer out of target_modules"
        raise ManifestError(message, where="student.adapter.unfreeze_rank_ratio", remedy=remedy)
    return sorted(found) if everything else list(adapter.target_modules)


@dataclass(frozen=True)
class AdapterCost:
    """What an adapter takes beside the model that it lies on, over all of its layers, which are matrices m x n of
    ``out`` and ``in`` features. Of LoRA the small products are not counted.

    Args:
        trained: numbers that move.
        held: numbers that it keeps beside them and does not train.
        rebuilt: numbers that each micro-batch makes anew and keeps until its way back.
        passing: numbers that it keeps of each token until the way back.
        token_products: multiplications that a token takes on its way forward.
        batch_products: multiplications of each micro-batch, however many tokens it has.
        batch_numbers: numbers of whole matrices that each micro-batch moves through memory.
        decomposed: n m^2 summed over matrices with m <= n that are taken apart before the first step.
        largest: numbers that the layer of which they are most has at once, beside what is kept.
    """

    trained: int
    held: int = 0
    rebuilt: int = 0
    passing: int = 0
    token_products: int = 0
    batch_products: int = 0
    batch_numbers: int = 0
    decomposed: int = 0
    largest: int = 0


def adapter_cost(adapter: Adapter, shapes: Iterable[tuple[int, int]], trained: int) -> AdapterCost:
    """Of an adapter on matrices of these shapes (out, in), of whose numbers so many are trained."""
    each = [_COSTS[adapter.kind](adapter, m, n) for m, n in shapes]
    summed = {one.name: sum(getattr(cost, one.name) for cost in each) for one in fields(AdapterCost)}
    most = max((cost.largest for cost in each), default=0)
    return AdapterCost(**summed | {"trained": trained, "largest": most})


def _lora_cost(adapter: Adapter, m: int, n: int) -> AdapterCost:
    return AdapterCost(adapter.r * (m + n))


def _dora_cost(adapter: Adapter, m: int, n: int) -> AdapterCost:
    """Each forward multiplies A and B out, by way of the identity [n, n], adds W and takes the rows' lengths; the
    outputs of W and of B are kept, because both are scaled."""
    return AdapterCost(
        trained=adapter.r * (m + n) + m,
        passing=2 * m,
        token_products=adapter.r * (m + n),
        batch_products=adapter.r * n * (m + n),
        batch_numbers=n * n + 12 * m * n,
        largest=n * n + 3 * m * n,
    )


def _osf_cost(adapter: Adapter, m: int, n: int) -> AdapterCost:
    """f of min(m, n) directions learn. Beside them lie what they were, and the kept vectors of the longer side, which
    gradients are projected off. Forward is one product of rank 2f, whose two factors [m, 2f] and [2f, n] are put
    together anew; the projections of a micro-batch are two products with each factor's gradient."""
    kept = int(min(m, n) * (1.0 - adapter.unfreeze_rank_ratio))
    f = min(m, n) - kept
    across, along = (kept, f) if m > n else (f, kept if n > m else f)
    factors = 2 * f * (m + n)
    return AdapterCost(
        trained=f * (m + n + 1),
        held=f * (m + n + 1) + (max(m, n) * kept if m != n else 0),
        rebuilt=factors,
        passing=2 * f,
        token_products=factors,
        batch_products=2 * f * (m * across + n * along),
        batch_numbers=2 * factors,
        decomposed=max(m, n) * min(m, n) ** 2,
        largest=factors,
    )


_COSTS = {"lora": _lora_cost, "dora": _dora_cost, "osf": _osf_cost}


def rank_used(adapter: Path) -> tuple[float, int] | None:
    """How many of its ranks a LoRA or DoRA in a peft folder uses, and how many it has; None where it is no such thing.

    A product uses the exponential of the entropy of its singular values (Roy and Vetterli 2007), from 1 to the rank; an
    adapter the mean over its matrices.
    """
    path = adapter / ADAPTER
    with safe_open(path, framework="pt") as tensors:
        names = [name for name in tensors.keys() if ".lora_A." in name]  # noqa: SIM118
        pairs = ((tensors.get_tensor(one), tensors.get_tensor(one.replace(".lora_A.", ".lora_B."))) for one in names)
        found = [(_entropy_rank(a_rn.float(), b_mr.float()), len(a_rn)) for a_rn, b_mr in pairs]
    if not found:
        return None
    return sum(used for used, _ in found) / len(found), max(rank for _, rank in found)


def _entropy_rank(a_rn: Tensor, b_mr: Tensor) -> float:
    """Of the product B A, whose singular values are those of two triangles [r, r]."""
    s_r = torch.linalg.svdvals(torch.linalg.qr(b_mr).R @ torch.linalg.qr(a_rn.T).R.T)
    share_r = s_r / s_r.sum().clamp_min(torch.finfo(s_r.dtype).tiny)
    return float(torch.special.entr(share_r).sum().exp())


def rehearse(config: PretrainedConfig, adapter: Adapter) -> AdapterCost:
    """Add the adapter to a model that has shapes and no numbers.

    Every adapted layer is run, and not the model: masks and routers of most architectures need numbers.

    Raises:
        ManifestError: as ``add_adapter``.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        adapted = add_adapter(model, adapter)
    shapes = [(one.out_features, one.in_features) for _, one in _adapted(model)]
    return adapter_cost(adapter, shapes, sum(value.numel() for value in adapted.parameters() if value.requires_grad))


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
                where=_TARGETS,
                remedy=_REMEDY,
            )


_Layer: TypeAlias = LoraLinear | OsfLinear


def _adapted(model: PreTrainedModel) -> Iterator[tuple[str, _Layer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, _Layer))


def _complaint(layer: _Layer) -> str:
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
