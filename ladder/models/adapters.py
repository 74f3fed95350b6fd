"""LoRA through peft: train an adapter, ship the merged weights and keep the adapter beside them."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from ladder.errors import ManifestError, ModelError, is_out_of_memory, said
from ladder.manifest.schema import Lora
from ladder.models.digest import read_object

ADAPTER = "adapter_model.safetensors"
STUDENT = "default"
"""Peft's name of the adapter that is trained; peft writes one of this name into the folder itself."""


def add_adapter(model: PreTrainedModel | PeftModel, lora: Lora) -> PeftModel:
    """Freeze the model and add a trainable adapter, B = 0, so that the first forward equals that of what is there.

    Raises:
        ManifestError: ``target_modules`` names nothing in this model, or one of two matrices that are tied.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    inner = plain(model)
    ends = inner.get_input_embeddings(), inner.get_output_embeddings()
    tied = all(ends) and ends[0].weight is ends[1].weight
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(STUDENT, config)
            adapted = model
        else:
            adapted = get_peft_model(model, config, adapter_name=STUDENT)
    except ValueError as error:
        raise ManifestError(
            str(error), where="student.adapter.target_modules", remedy="name linear layers of this model, or all-linear"
        ) from error
    # Merging would add the one matrix's adapter to both, so the model that ships would not be the one that was trained.
    if tied and (inner.get_input_embeddings() is not ends[0] or inner.get_output_embeddings() is not ends[1]):
        raise ManifestError(
            "names the embedding or the output head of a model in which the two are tied",
            where="student.adapter.target_modules",
            remedy="leave both out, or use all-linear, which does",
        )
    return adapted


def merged(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The base with the adapter of a peft folder merged into its weights. The base itself is used up."""
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


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
