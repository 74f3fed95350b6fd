"""Continuing rows of token ids: the one place that calls a model's ``generate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from ladder.models import generation_settings


@torch.no_grad()
def continue_rows(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    *,
    pad: int,
    ends: Iterable[int],
    hooks: dict[str, Any] | None = None,
    **settings: Any,
) -> list[list[int]]:
    """What a model writes after each row, padded on the left and masked; by these settings alone.

    Args:
        rows: token ids of each, one or more.
        pad: what shorter rows are padded with. Attention does not see it, so it may be an end id.
        ends: ids that end a row; after the first of them ``generate`` writes ``pad`` up to the longest row.
        hooks: of ``generate`` itself, such as ``logits_processor`` and ``stopping_criteria``.
        settings: of transformers' ``GenerationConfig``, such as ``max_new_tokens`` and ``do_sample``.
    """
    width = max(map(len, rows))
    padded = [[pad] * (width - len(ids)) + list(ids) for ids in rows]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in rows]
    with generation_settings(model, pad_token_id=pad, eos_token_id=sorted(ends) or None, **settings):
        output_BT = model.generate(
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            **hooks or {},
        )
    return output_BT[:, width:].tolist()
