"""What a finished training leaves: the child as a plain Hugging Face folder, and its adapter beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.errors import RunError
from ladder.models import STUDENT, Rounding, as_stored, check_survives, load_model, merged, save_model
from ladder.system.files import save_folder
from ladder.system.terms import carry
from ladder.train.spec import TrainingSpec

_TOO_SMALL = (
    "write student.save_dtype: float32 (twice the size), or train with more steps or a larger training_params.lr"
)


def write_candidate(
    folder: Path,
    spec: TrainingSpec,
    tokenizer: PreTrainedTokenizerFast,
    model: PreTrainedModel | PeftModel,
    trained: Mapping[str, Tensor],
    *,
    whole: bool,
) -> Rounding | None:
    """Write a folder that is either whole or absent, in the dtype that ``student.save_dtype`` asks for, or that of what
    the child started as.

    Args:
        trained: the parameters that moved, as the model names them, each in one piece.
        whole: whether ``model`` itself holds them in one piece, too; it is used up then.

    Returns:
        What became of the change where weights were rounded.

    Raises:
        RunError: the last step made a weight that is not finite, which no later loss could show; or nothing of what
            changed is left after rounding.
    """
    if broken := [name for name, value in trained.items() if not value.isfinite().all()]:
        raise RunError(f"{broken[0]} is not finite", where="training_params.lr", remedy="lower the learning rate")
    rounding: list[Rounding | None] = []

    def write(target: Path) -> None:
        save_model(target, _child(spec, model, trained, target / "adapter", whole), tokenizer)
        rounding.append(as_stored(target, spec.start, spec.manifest.student.save_dtype))
        carry(spec.start, target)
        if rounding[0] is not None:
            check_survives(rounding[0], "student.save_dtype", _TOO_SMALL)

    save_folder(folder, write)
    return rounding[0]


def _child(
    spec: TrainingSpec, model: PreTrainedModel | PeftModel, trained: Mapping[str, Tensor], adapter: Path, whole: bool
) -> PreTrainedModel:
    """The child as a model of its own; where it is an adapter, that is written into a folder as well."""
    if not isinstance(model, PeftModel):
        return model if whole else _with(load_model(spec.start, "float32"), trained)
    model.peft_config[STUDENT].base_model_name_or_path = spec.base_name
    model.save_pretrained(
        adapter, selected_adapters=[STUDENT], save_embedding_layers=False, state_dict=None if whole else dict(trained)
    )
    lora = spec.manifest.student.adapter
    assert lora is not None, "an adapter was asked for"
    if whole and spec.stack is None and lora.base == "full" and model.dtype == torch.float32:
        return model.merge_and_unload()
    # Onto what the child starts as, and not onto what is in memory, which may be quantised, narrower, or have other
    # generations' adapters on it; in float32, so that what is small is rounded once, and counted; and not on a GPU,
    # where it would stand beside the other.
    return merged(load_model(spec.start, "float32"), adapter)


@torch.no_grad()
def _with(model: PreTrainedModel, trained: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model with these parameters."""
    for name, value in trained.items():
        model.get_parameter(name).copy_(value)
    return model
