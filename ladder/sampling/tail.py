"""How likely the end of a text is, where texts fall apart first."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import torch
from transformers import PreTrainedModel

from ladder.distill import full_float32


@full_float32()
@torch.no_grad()
def tail_perplexity(model: PreTrainedModel, ids: Sequence[int], prompt: int) -> float:
    """Perplexity of the last quarter of a continuation, one token at least; infinite where nothing was written.

    exp(-mean_t ln p(x_t | x_<t))

    Args:
        ids: of prompt and continuation.
        prompt: tokens of the prompt, 1 or more.
    """
    written = len(ids) - prompt
    if written < 1:
        return float("inf")
    last = -(-written // 4)
    text_1T = torch.tensor([list(ids)], device=model.device)
    log_p_nV = model(input_ids=text_1T, use_cache=False).logits[0, -last - 1 : -1].float().log_softmax(-1)
    return exp(min(700.0, -float(log_p_nV.gather(-1, text_1T[0, -last:, None]).mean())))
