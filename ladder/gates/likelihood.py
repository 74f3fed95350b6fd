"""Probes that are read off a model's probabilities: the likeliest of some options, and the likelihood of a text."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data.examples import continued_ids, text_ids
from ladder.gates.probes import Probe
from ladder.gates.question import banned_ids, check_lengths, encode_question
from ladder.gates.reading import row_logits
from ladder.models.generation import pad_id


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
) -> list[str]:
    """For each probe what ``score`` wants: of ``choice`` the option with the largest log-probability a byte, the first
    of equal ones (as ``acc_norm`` of lm-evaluation-harness); of ``nll`` the geometric mean of the tokens'
    probabilities.

    Raises:
        GateError: logits are not finite, or a prompt with what follows it is too long.
    """
    texts = [probe.options or (probe.answer,) for probe in probes]
    rows = [_row(tokenizer, probe, text) for probe, said in zip(probes, texts, strict=True) for text in said]
    ids, banned = [row.ids for row in rows], banned_ids(model, tokenizer, taboo_ids)
    check_lengths(model, ids, 0)
    found = {
        place: _judged(logits_TV, rows[place], banned)
        for place, logits_TV in row_logits(model, pad_id(tokenizer), ids, batch_size)
    }
    logs = (found[place] for place in range(len(rows)))
    return [_said(probe, [(text, next(logs)) for text in said]) for probe, said in zip(probes, texts, strict=True)]


def _row(tokenizer: PreTrainedTokenizerFast, probe: Probe, text: str) -> _Row:
    prompt = encode_question(tokenizer, probe.question())
    said = text_ids(tokenizer, text) if probe.chat else continued_ids(tokenizer, probe.prompt, text)[1]
    return _Row(prompt + said, len(prompt))


def _said(probe: Probe, found: Sequence[tuple[str, list[float]]]) -> str:
    if probe.kind == "nll":
        ((_, logs),) = found
        return repr(exp(sum(logs) / len(logs)))
    return max(found, key=lambda pair: sum(pair[1]) / len(pair[0].encode()))[0]


def _judged(logits_TV: Tensor, row: _Row, banned: Tensor) -> list[float]:
    """ln p of each judged token."""
    log_p_nV = logits_TV[row.first - 1 : -1].index_fill(-1, banned, -torch.inf).log_softmax(-1)
    tokens_n1 = torch.tensor(row.ids[row.first :], device=log_p_nV.device).unsqueeze(-1)
    return log_p_nV.gather(-1, tokens_n1).squeeze(-1).tolist()
