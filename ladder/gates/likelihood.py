"""Probes that are read off a model's probabilities: the likeliest of some options, and the likelihood of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data.examples import text_ids
from ladder.errors import GateError
from ladder.gates.probes import Probe
from ladder.gates.question import banned_ids, check_lengths, encode_question
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
    check_lengths(model, [row.ids for row in rows], 0)
    reader = _Reader(model, pad_id(tokenizer), banned_ids(model, tokenizer, taboo_ids))
    logs = iter(reader.read(rows, batch_size))
    return [_said(probe, [(text, next(logs)) for text in said]) for probe, said in zip(probes, texts, strict=True)]


def _row(tokenizer: PreTrainedTokenizerFast, probe: Probe, text: str) -> _Row:
    prompt = encode_question(tokenizer, probe.question())
    return _Row(prompt + text_ids(tokenizer, text), len(prompt))


def _said(probe: Probe, found: Sequence[tuple[str, list[float]]]) -> str:
    if probe.kind == "nll":
        ((_, logs),) = found
        return repr(exp(sum(logs) / len(logs)))
    return max(found, key=lambda pair: sum(pair[1]) / len(pair[0].encode()))[0]


@dataclass(frozen=True, eq=False)
class _Reader:
    """A model and the ids that it never says."""

    model: PreTrainedModel
    pad: int
    banned: Tensor

    def read(self, rows: Sequence[_Row], batch_size: int) -> list[list[float]]:
        """ln p of each judged token, by row."""
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
        found: list[list[float]] = [[] for _ in rows]
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            for row, logs in zip(part, self._batch([rows[row] for row in part]), strict=True):
                found[row] = logs
        return found

    @torch.inference_mode()
    def _batch(self, rows: Sequence[_Row]) -> list[list[float]]:
        """Rows are padded on the right, where nothing that is judged can see it."""
        width, device = max(len(row.ids) for row in rows), self.model.device
        ids_BT = torch.tensor([row.ids + [self.pad] * (width - len(row.ids)) for row in rows], device=device)
        mask_BT = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows], device=device)
        logits_BTV = self.model(ids_BT, attention_mask=mask_BT).logits
        return [self._judged(logits_BTV[place], row) for place, row in enumerate(rows)]

    def _judged(self, logits_TV: Tensor, row: _Row) -> list[float]:
        logits_nV = logits_TV[row.first - 1 : len(row.ids) - 1].float()
        if not torch.isfinite(logits_nV).all():
            raise GateError("the model's logits are not finite", where="decoding", remedy="examine it in float32")
        log_p_nV = logits_nV.index_fill(-1, self.banned, -torch.inf).log_softmax(-1)
        tokens_n1 = torch.tensor(row.ids[row.first :], device=logits_nV.device).unsqueeze(-1)
        return log_p_nV.gather(-1, tokens_n1).squeeze(-1).tolist()
