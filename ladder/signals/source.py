"""Sources of teacher logits on the student's side. ``distill`` sees only ``logits() -> [N, V]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ladder.models.head import Head, trusted_head
from ladder.models.load import load_model
from ladder.signals.wire import Signal, decode


@dataclass(frozen=True)
class TeacherHead:
    """What the student keeps of a teacher: its frozen output head, where hidden states come over the wire."""

    head: Head | None
    device: torch.device

    @classmethod
    def load(cls, folder: Path, kind: str, dtype: str, device: str) -> TeacherHead:
        """Take the proved head out of a teacher's folder; a teacher that sends logits needs none here."""
        if kind == "logits":
            return cls(None, torch.device(device))
        head = trusted_head(load_model(folder, dtype, device).requires_grad_(False))
        return cls(head, torch.device(device))

    def source(self, signal: Signal, tokens: int) -> Source:
        """The teacher's logits for a batch with ``tokens`` trained tokens."""
        return Source(decode(signal, tokens, self.device), self.head)


@dataclass(frozen=True)
class Source:
    """One teacher's word on N tokens: hidden states [N, D] with their head, or logits [N, V]."""

    values: Tensor
    head: Head | None

    @cached_property
    def logits_NV(self) -> Tensor:
        with torch.no_grad():
            return self.values if self.head is None else self.head.logits(self.values)
