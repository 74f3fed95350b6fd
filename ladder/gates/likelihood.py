"""Probes that are read off a model's probabilities: the likeliest of some options, and the likelihood of a text."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data.jsonl import shown
from ladder.errors import GateError
from ladder.gates.probes import Probe
from ladder.gates.question import banned_ids, check_lengths, encode_answered
from ladder.gates.reading import row_logits
from ladder.manifest.schema import ControlTokens
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
