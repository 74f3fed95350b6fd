"""A frozen teacher: reads a batch, says what it knows about each trained token, and can dream. Knows no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from ladder.data.collate import Batch
from ladder.data.dreams import Dream, Sampling, write_block
from ladder.models.digest import tensors_digest
from ladder.models.forward import trained_hidden_states, trained_logits
from ladder.models.head import find_head, trusted_head
from ladder.models.load import load_model
from ladder.signals.wire import Kind, Signal, encode


@dataclass(frozen=True)
class TeacherSpec:
    """Everything a teacher needs; picklable.

    Args:
        folder: its Hugging Face folder.
        number: 1 (primary) or 2 (stabilising critic).
        kind: what it sends for a token.
        dreams_only: it dreams, and speaks on its own dreams alone.
    """

    folder: Path
    number: int
    kind: Kind
    dtype: str
    dreams_only: bool = False
    device: str = "cpu"
    threads: int = 1


class Teacher:
    """One frozen generation."""

    def __init__(self, spec: TeacherSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.model = load_model(spec.folder, spec.dtype, spec.device).requires_grad_(False)
        self.head = trusted_head(self.model) if spec.kind == "hidden" else find_head(self.model)

    @torch.no_grad()
    def signal(self, batch: Batch) -> Signal:
        """What this teacher says about the tokens that it must hear: hidden states [M, D] or logits [M, V]."""
        heard, places = batch.heard_by(self.spec.number, dreams_only=self.spec.dreams_only)
        if len(places) == 0:
            return encode(self.spec.kind, torch.zeros(0, self._width(), dtype=self.model.dtype), places)
        say = trained_hidden_states if self.spec.kind == "hidden" else trained_logits
        return encode(self.spec.kind, say(self.model, heard), places)

    def dream(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        answer_turn: Sequence[int],
    ) -> list[Dream]:
        """Write one block of dreams."""
        return write_block(
            self.model, tokenizer, prompts, sampling, teacher=self.spec.number, seed=seed, answer_turn=answer_turn
        )

    def digest(self) -> str:
        """Content digest of the tensors in memory; equal before and after a run, or the teacher was not frozen."""
        return tensors_digest(self.model.state_dict())

    def _width(self) -> int:
        vocabulary, hidden = self.head.shape
        return hidden if self.spec.kind == "hidden" else vocabulary
