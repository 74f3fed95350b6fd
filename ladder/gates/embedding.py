"""Tone by embeddings: how far a model's answers lie from a reference in the space of a local sentence encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from ladder.errors import GateError
from ladder.gates.tone import comparable
from ladder.models import load_encoder, load_tokenizer, pad_id

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


def embedding_drift(
    embed: Callable[[Sequence[str]], Tensor], answers: Sequence[str], reference: Sequence[str], *, paired: bool = False
) -> float:
    """Drift of ``answers`` from ``reference``, in [0, 1].

    Args:
        embed: gives the embeddings [N, D] of N texts.
        answers: what the model said, one text an entry; empty ones say nothing and are left out.
        reference: utterances in the voice, about the same topics.
        paired: each answer and the utterance at its place answer one prompt, so the two are not compared.

    Raises:
        GateError: too little to compare, as in ``tone.drift``, or embeddings are not finite.
    """
    ours, voice = comparable(answers, reference, paired=paired)
    ours_ND, voice_MD = embed(ours).double(), embed(voice).double()
    if not (ours_ND.isfinite().all() and voice_MD.isfinite().all()):
        raise GateError("embeddings are not finite", where="gates.tone.encoder", remedy="name another encoder")
    return inhomogeneity(ours_ND, voice_MD, paired=paired)


def inhomogeneity(x_ND: Tensor, y_MD: Tensor, *, paired: bool = False) -> float:
    """The coefficient H of two samples, in [0, 1]; 0 where all points are one.

    Args:
        paired: row i of both belong together, so their distance says nothing and is left out.
    """
    apart = _distances(x_ND, y_MD)
    between = _mean_of_others(apart) if paired else apart.mean()
    if between == 0:
        return 0.0
    within = (_mean_of_others(_distances(x_ND, x_ND)) + _mean_of_others(_distances(y_MD, y_MD))) / 2
    return float((1 - within / between).clamp(0, 1))


def _distances(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    # Without the matrix product, which leaves equal points some distance apart.
    return torch.cdist(x_ND, y_MD, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_of_others(distances_NN: Tensor) -> Tensor:
    """The mean without the diagonal."""
    n = len(distances_NN)
    return (distances_NN.sum() - distances_NN.trace()) / (n * (n - 1))
