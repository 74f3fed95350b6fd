"""The proof that a stored model is the examined one: load it the way a reader will, and compare ids and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.errors import ModelError

TOLERANCE = 1e-5
"""Largest absolute difference of two logits on the probe batch."""


def check_reload(candidate: Path, artifact: Path) -> None:
    """Load the candidate's folder and the stored MLflow model, and compare the ids of a corpus and the logits of a
    fixed probe batch.

    A saved model can be corrupt without an error: keys that do not fit are filled with random weights on loading.

    Raises:
        TokenizerMismatch: the tokenizers make other ids.
        ModelError: the logits differ by more than ``TOLERANCE``, or are no numbers.
    """
    from ladder.models import check_same_ids, load_model, load_tokenizer
    from ladder.registry.artifacts import TOKENIZER, stored_dtype

    reader = _load_with_mlflow(artifact)
    check_same_ids(load_tokenizer(candidate), reader["tokenizer"], str(artifact / TOKENIZER))
    expected = _logits(load_model(candidate, stored_dtype(candidate)))
    found = _logits(reader["model"].to("cpu").eval())
    difference = (expected - found).abs().max().item() if expected.shape == found.shape else float("inf")
    if not difference <= TOLERANCE:
        raise ModelError(
            f"after reloading, logits differ by {difference:.3g}, allowed is {TOLERANCE:g}; nothing was registered",
            where=str(artifact),
            remedy="the model was not stored as it was examined; record it again",
        )


def _load_with_mlflow(artifact: Path) -> dict[str, Any]:
    import mlflow.transformers

    return dict(mlflow.transformers.load_model(str(artifact), return_type="components"))


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    """Logits [2, 12, V] in float32 of a batch that is the same for every model with this vocabulary."""
    vocabulary = model.config.get_text_config().vocab_size
    input_ids_BT = (torch.arange(24).reshape(2, 12) * 7919) % vocabulary
    logits: Tensor = model(input_ids=input_ids_BT).logits
    return logits.float()
