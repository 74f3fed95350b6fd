"""Generation by ladder's own settings, not by those that a folder carries for its users: the one place that calls a
model's ``generate``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.distill import full_float32
from ladder.models.ensemble import Ensemble

_PADS_LEFT: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
_ROWS, _OWN, _PADDING = 3, 4, 2


@contextmanager
def generation_settings(model: PreTrainedModel, **settings: Any) -> Iterator[None]:
    """Put these settings in place of the model's own ``generation_config``, which ``generate`` would fall back to."""
    original = model.generation_config
    model.generation_config = GenerationConfig(**settings)
    try:
        yield
    finally:
        model.generation_config = original


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Every id that ends a text by the word of tokenizer, model or generation settings; a chat model has several."""
    found: set[int] = set()
    for declared in (tokenizer, model.config, model.generation_config):
        ids = getattr(declared, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The padding id, or the end id where the tokenizer has none; attention masks tell padding from text."""
    found = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if found is None else found


def decoding_batches(model: PreTrainedModel, lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which prompts are continued together, the longest first: at most ``size``, padded on the left.

    Where padding moves a model's answers, as those of RWKV, which has no mask, only prompts of one length are.

    Args:
        lengths: tokens of each prompt.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    runs = [order]
    if len(set(lengths)) > 1 and not pads_left(model):
        runs = [list(run) for _, run in groupby(order, key=lambda place: lengths[place])]
    return [run[first : first + size] for run in runs for first in range(0, len(run), size)]


def pads_left(model: PreTrainedModel) -> bool:
    """Whether a row that is padded on the left, and masked, is continued as the row alone. Asked once of a model.

    Of an ensemble every member must be: in the mixture, one with little weight would hardly show."""
    if isinstance(model, Ensemble):
        return all(map(pads_left, model.members))
    if model not in _PADS_LEFT:
        _PADS_LEFT[model] = _padding_gap(model) <= torch.finfo(model.dtype).eps ** 0.5
    return _PADS_LEFT[model]


@full_float32()
@torch.no_grad()
def _padding_gap(model: PreTrainedModel) -> float:
    """How far padding moves the last token's logits, relative to their size; the smallest of some rows."""
    vocabulary = model.config.get_text_config().vocab_size
    ids_BT = ((torch.arange(_ROWS * _OWN) * 7919 + 104729) % vocabulary).reshape(_ROWS, _OWN).to(model.device)
    alone_BV, padded_BV = (_next_logits(model, ids_BT, padding) for padding in (0, _PADDING))
    return ((padded_BV - alone_BV).norm(dim=-1) / alone_BV.norm(dim=-1).clamp_min(1e-6)).min().item()


def _next_logits(model: PreTrainedModel, ids_BT: torch.Tensor, padding: int) -> torch.Tensor:
    """Logits [B, V] after rows with so many masked tokens before them."""
    blank_BP = ids_BT.new_zeros(len(ids_BT), padding)
    mask_BT = torch.cat([blank_BP, torch.ones_like(ids_BT)], 1)
    position_BT = (mask_BT.cumsum(-1) - 1).clamp_min(0)
    told = model(
        input_ids=torch.cat([blank_BP, ids_BT], 1), attention_mask=mask_BT, position_ids=position_BT, use_cache=False
    )
    return told.logits[:, -1].float()


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
