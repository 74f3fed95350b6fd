"""Probes that are read off a model's probabilities: the likeliest of some options, the likelihood of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, inf
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data import shown
from ladder.errors import GateError
from ladder.exam.exam import Probe, Prompt
from ladder.exam.question import banned_ids, check_lengths, encode_answered, encode_question
from ladder.manifest import ControlTokens
from ladder.models import pad_id

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


class _Row(NamedTuple):
    """A prompt with what follows it, whose tokens from ``first`` on are judged."""

    ids: list[int]
    first: int


def read_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    batch_size: int,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> list[str]:
    """For each probe what ``score`` wants: of ``choice`` the option with the largest log-probability a byte, the first
    of equal ones (as ``acc_norm`` of lm-evaluation-harness); of ``nll`` the geometric mean of the tokens'
    probabilities. An option without tokens says nothing, so it is never the likeliest; ``check_encodable`` refuses it
    beforehand, and an ancestor may have left one from before that.

    Raises:
        GateError: logits are not finite, a prompt with what follows it is too long, or a text of ``nll`` has no tokens.
    """
    texts = [probe.said for probe in probes]
    rows = [_row(tokenizer, probe, text, controls) for probe, said in zip(probes, texts, strict=True) for text in said]
    ids, banned = [row.ids for row in rows], banned_ids(model, tokenizer, taboo_ids)
    check_lengths(model, ids, 0)
    found = {
        place: _judged(logits_TV, rows[place], banned)
        for place, logits_TV in row_logits(model, pad_id(tokenizer), ids, batch_size)
    }
    logs = (found[place] for place in range(len(rows)))
    return [_said(probe, [(text, next(logs)) for text in said]) for probe, said in zip(probes, texts, strict=True)]


def _row(tokenizer: PreTrainedTokenizerFast, probe: Probe, text: str, controls: ControlTokens) -> _Row:
    return _Row(*encode_answered(tokenizer, probe.question(), text, controls))


def _said(probe: Probe, found: Sequence[tuple[str, list[float]]]) -> str:
    if probe.kind == "nll":
        ((text, logs),) = found
        if not logs:
            raise GateError(
                f"the text {shown(text)} has no tokens", where=probe.where or f"prompt {shown(probe.prompt)}"
            )
        return repr(exp(sum(logs) / len(logs)))
    return max(found, key=lambda pair: sum(pair[1]) / len(pair[0].encode()) if pair[1] else -inf)[0]


def _judged(logits_TV: Tensor, row: _Row, banned: Tensor) -> list[float]:
    """ln p of each judged token."""
    log_p_nV = logits_TV[row.first - 1 : -1].index_fill(-1, banned, -torch.inf).log_softmax(-1)
    tokens_n1 = torch.tensor(row.ids[row.first :], device=log_p_nV.device).unsqueeze(-1)
    return log_p_nV.gather(-1, tokens_n1).squeeze(-1).tolist()
