"""LoRA through peft: train an adapter, ship the merged weights and keep the adapter beside them."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from ladder.errors import ManifestError
from ladder.manifest.schema import Lora

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


def plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside, with the adapter's layers in place where there are any."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
