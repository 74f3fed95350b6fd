"""Sources of teacher logits on the student's side (see ``ladder.distill.tokens.Source``): the arrays stay as they came,
with an index from the batch's N tokens to the M rows that were sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ladder.distill import Known, onto
from ladder.errors import ModelError
from ladder.models import Head, deduplicated, load_head
from ladder.teachers.wire import ORIGIN, Signal, TopK, Truncation, decode, decode_topk, rebuild


class SignalSource(ABC):
    """Base of the sources: which tokens have a signal, and in which row it lies.

    Args:
        places: which M of the N tokens the rows are about.
        tokens: N.
    """

    head_size: int
    dtype: torch.dtype
    may_pass = False
    """Whether it may have nothing to say about a token that it was asked about."""
    origin_N: Tensor | None = None
    """Which of the teacher's own sources spoke of each token, int64 [N]; 0 where it passes, which ``speaks_N`` tells.
    None where it has one."""

    def __init__(self, places: np.ndarray, tokens: int, device: torch.device) -> None:
        row_N = np.full(tokens, -1, dtype=np.int64)
        row_N[places] = np.arange(len(places))
        self.device = device
        host_N = torch.from_numpy(row_N)
        self.row_N = onto(host_N, device)
        """Row of each token, int64 [N]; -1 where the teacher did not hear it."""
        self.speaks_N, self.heard_N = self.row_N >= 0, host_N >= 0

    @abstractmethod
    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        """Write the first V columns of the logits of tokens that were heard into ``out_nV`` [n, V] and return it."""

    def known(self, rows_n: Tensor) -> Known | None:
        """Exact statistics, for logits that are not exact themselves."""
        return None

    @cached_property
    def logits_NV(self) -> Tensor:
        """All logits [N, head_size] at once; zeros where the teacher did not hear."""
        out_NV = torch.zeros(len(self.row_N), self.head_size, dtype=self.dtype, device=self.device)
        rows_n = self.speaks_N.nonzero().squeeze(-1)
        out_NV[rows_n] = self.logits(rows_n, out_NV.new_empty(len(rows_n), self.head_size))
        return out_NV

    def _at(self, values_MX: Tensor, rows_n: Tensor) -> Tensor:
        """The rows of these tokens. A token that was not heard has index -1, which ``index_select`` refuses."""
        return values_MX.index_select(0, self.row_N.index_select(0, rows_n))


class HiddenSource(SignalSource):
    """Final hidden states [M, D] and the teacher's own head."""

    def __init__(self, hidden_MD: Tensor, head: Head, places: np.ndarray, tokens: int) -> None:
        super().__init__(places, tokens, hidden_MD.device)
        self.hidden_MD, self.dtype = hidden_MD, hidden_MD.dtype
        with torch.no_grad():
            self.over_M = head.student(hidden_MD)
        self.head_size = self.over_M.head_size

    @torch.no_grad()
    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return self.over_M.logits(self.row_N.index_select(0, rows_n), out_nV)


class LogitsSource(SignalSource):
    """Whole logits [M, H], as the teacher's own head gave them."""

    def __init__(self, logits_MH: Tensor, places: np.ndarray, tokens: int) -> None:
        super().__init__(places, tokens, logits_MH.device)
        self.logits_MH, self.head_size, self.dtype = logits_MH, logits_MH.shape[-1], logits_MH.dtype

    @classmethod
    def dense(cls, logits_NV: Tensor) -> LogitsSource:
        """A teacher that speaks about every token."""
        return cls(logits_NV, np.arange(len(logits_NV)), len(logits_NV))

    @torch.no_grad()
    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return out_nV.copy_(self._at(self.logits_MH[:, : out_nV.shape[-1]], rows_n))


class TopKSource(SignalSource):
    """Truncated distributions. Its head has exactly one column for each id of the tokenizer.

    Its logits are right at the temperature of the truncation, but for how the rest's mass is spread. ``known`` is
    exact.
    """

    dtype = torch.float32

    def __init__(self, top: TopK, truncation: Truncation, places: np.ndarray, tokens: int) -> None:
        super().__init__(places, tokens, top.logits_MK.device)
        self.top, self.truncation, self.head_size = top, truncation, truncation.vocabulary

    @torch.no_grad()
    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return rebuild(self._rows(rows_n), self.truncation, out_nV)

    @torch.no_grad()
    def known(self, rows_n: Tensor) -> Known:
        rows = self._rows(rows_n)
        norm_n = _norm(rows)
        top1_n = (rows.logits_MK[:, 0] - norm_n).exp()
        return Known(top1_n, rows.entropy_M, rows.surprisal_M, (rows.tail_M - norm_n).exp())

    @torch.no_grad()
    def likeliest(self, rows_n: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 [n, K] and exact log-probabilities at temperature 1, for ``ladder.distill.divergence``."""
        rows = self._rows(rows_n)
        return rows.ids_MK.long(), rows.logits_MK - _norm(rows).unsqueeze(-1)

    def _rows(self, rows_n: Tensor) -> TopK:
        return TopK(**{name: self._at(values, rows_n) for name, values in vars(self.top).items()})


@dataclass(frozen=True)
class TeacherHead:
    """What the student keeps of a teacher: its frozen output head, where hidden states come over the wire."""

    head: Head | None
    device: torch.device

    @classmethod
    def load(cls, folder: Path, kind: str, dtype: str, device: str) -> TeacherHead:
        """Take the head out of a teacher's folder, for a teacher that proved it in its own process and therefore sends
        hidden states; one that sends logits of any kind needs none here."""
        return cls(load_head(folder, dtype, device) if kind == "hidden" else None, torch.device(device))

    def source(self, signal: Signal, tokens: int) -> SignalSource:
        """The source of this teacher's logits for a batch with ``tokens`` trained tokens.

        Raises:
            ModelError: the signal is malformed, speaks of other tokens than the batch has, or needs a head that is not
                here.
        """
        signal.check(tokens)
        if signal.truncation is not None:
            found = TopKSource(decode_topk(signal, self.device), signal.truncation, signal.places, tokens)
            if ORIGIN in signal.rows:
                origin_N = torch.zeros(tokens, dtype=torch.long)
                origin_N[torch.from_numpy(signal.places.copy())] = torch.from_numpy(
                    signal.rows[ORIGIN].astype(np.int64)
                )
                found.origin_N, found.may_pass = onto(origin_N, self.device), True
            return found
        values = decode(signal.values, signal.dtype, self.device)
        if signal.kind == "logits":
            return LogitsSource(values, signal.places, tokens)
        if self.head is None:
            raise ModelError("hidden states came from a teacher of which no head was loaded", where="runtime.wire")
        return HiddenSource(values, self.head, signal.places, tokens)


def shared(heads: Mapping[int, TeacherHead], student: Head | None) -> dict[int, TeacherHead]:
    """What the student keeps of its teachers, by number, with equal heads held once."""
    found = deduplicated({number: one.head for number, one in heads.items() if one.head is not None}, student)
    return {number: replace(one, head=found.get(number)) for number, one in heads.items()}


def _norm(top: TopK) -> Tensor:
    """logsumexp of all permitted logits at temperature 1, [M]."""
    return torch.logaddexp(top.logits_MK.logsumexp(-1), top.tail_M)
