"""Tone by embeddings: how far a model's answers lie from a reference in the space of a sentence encoder.

The drift is the coefficient of inhomogeneity of G. Székely and M. Rizzo ("Energy statistics", 2013),

    H = (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / 2 E|X - Y|,    0 <= H <= 1,

which is 0 where answers X and reference Y have one distribution. Each mean leaves out the distance of a text to itself,
so two samples of one voice give about 0, however small they are.

Encoders are made to tell topics apart. Compare answers with a reference on the same topics, best the parent's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ladder.errors import GateError
from ladder.gates.tone import comparable


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
