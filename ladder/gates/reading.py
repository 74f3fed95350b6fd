"""Reading rows of token ids: the logits behind each of their tokens, and how open a model finds its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.errors import GateError
from ladder.gates.probes import Prompt
from ladder.gates.question import encode_question
from ladder.manifest.schema import ControlTokens
from ladder.models.generation import pad_id

PROMPTS_AT_ONCE = 16
"""Prompts in a batch. All logits of a batch are in memory, of which decoding keeps one position a row."""


@torch.inference_mode()
def row_logits(
    model: PreTrainedModel, pad: int, rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """The place of each row and its logits [T, V] in float32, the longest rows first.

    Rows are padded on the right, where nothing that is read can see it.

    Raises:
        GateError: logits are not finite.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        for place, logits_TV in zip(places, _batch(model, pad, [rows[place] for place in places]), strict=True):
            own_TV = logits_TV[: len(rows[place])].float()
            if not torch.isfinite(own_TV).all():
                raise GateError("the model's logits are not finite", where="decoding", remedy="examine it in float32")
            yield place, own_TV


def _batch(model: PreTrainedModel, pad: int, rows: Sequence[Sequence[int]]) -> Tensor:
    width, device = max(map(len, rows)), model.device
    ids_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return model(ids_BT, attention_mask=mask_BT).logits


def prompt_entropies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    controls: ControlTokens = "text",
) -> list[list[float]]:
    """Entropy in nats of the token that follows each token of a prompt, by prompt. No token is banned.

    Raises:
        GateError: logits are not finite, or a prompt cannot be asked of this model.
    """
    rows = [encode_question(tokenizer, prompt, controls) for prompt in prompts]
    found: list[list[float]] = [[] for _ in rows]
    for place, logits_TV in row_logits(model, pad_id(tokenizer), rows, PROMPTS_AT_ONCE):
        log_p_TV = logits_TV.log_softmax(-1)
        found[place] = (-(log_p_TV.exp() * log_p_TV).sum(-1)).tolist()
    return found
