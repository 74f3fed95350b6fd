"""Sentence embeddings from a local encoder, such as MiniLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from ladder.models.generation import pad_id
from ladder.models.load import load_encoder, load_tokenizer

LONGEST = 256
"""Tokens of a text that are read; the rest is left out."""
_BATCH = 32


class SentenceEncoder:
    """An encoder on the CPU. A sentence is the mean of its tokens' final hidden states, brought to length 1
    (N. Reimers and I. Gurevych, "Sentence-BERT", 2019).

    Args:
        folder: a Hugging Face folder with safetensors and a fast tokenizer.

    Raises:
        ModelError: the folder cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._model, self._tokenizer = load_encoder(folder), load_tokenizer(folder)
        self._longest = min(LONGEST, getattr(self._model.config, "max_position_embeddings", LONGEST))

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [N, D] of N texts, float32. A text does not feel which others share its batch."""
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        return torch.cat([self._embed(batch) for batch in batches])

    def _embed(self, texts: Sequence[str]) -> Tensor:
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._longest)["input_ids"]
        rows = [torch.tensor(row) for row in ids]
        ids_BT = pad_sequence(rows, batch_first=True, padding_value=pad_id(self._tokenizer))
        mask_BT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        hidden_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        # The mean is the sum but for its length, which is taken off.
        return normalize((hidden_BTD * mask_BT.unsqueeze(-1)).sum(1), dim=-1)
