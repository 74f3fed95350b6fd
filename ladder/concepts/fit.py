"""From residuals to directions: every text is held against the others of its own setting, so that what a setting adds
to all of them falls out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from ladder.concepts.corpus import Text
from ladder.errors import DataError

Method = Literal["mean", "pca", "logistic"]
METHODS: tuple[Method, ...] = ("mean", "pca", "logistic")
PENALTY = 1e-2
"""Of the squared weights of the logistic fit, beside a mean loss, on residuals of unit variance."""


def contrasts_of(texts: Sequence[Text], concepts: Sequence[str]) -> Tensor:
    """Weights [C, N], float64, that make a direction of N residuals: mean of the positives less mean of the negatives,
    in each setting, weighed by the positives in it.

    Negatives of a concept are all texts of the same setting that do not show it. A setting without any is left out; a
    concept that has no other has zeros.
    """
    rows = torch.zeros(len(concepts), len(texts), dtype=torch.float64)
    setting_of = [one.setting for one in texts]
    for row, concept in enumerate(concepts):
        own = torch.tensor([one.concept == concept for one in texts])
        for setting in sorted({one.setting for one in texts if one.concept == concept}):
            here = torch.tensor([one == setting for one in setting_of])
            if (here & ~own).any():
                positives = float((here & own).sum())
                rows[row, here & own] = 1.0
                rows[row, here & ~own] = -positives / float((here & ~own).sum())
    return rows / rows.clamp(min=0).sum(1, keepdim=True).clamp_min(1.0)


def centred(residual_ND: Tensor, texts: Sequence[Text]) -> Tensor:
    """Residuals less the mean of their setting, [N, D] float64."""
    found_ND = residual_ND.double().clone()
    for setting in {one.setting for one in texts}:
        here = torch.tensor([one.setting == setting for one in texts])
        found_ND[here] -= found_ND[here].mean(0)
    return found_ND


def directions(residual_ND: Tensor, texts: Sequence[Text], concepts: Sequence[str], method: Method = "mean") -> Tensor:
    """Directions of one layer, [C, D] float64, not of unit length: zeros where positives and negatives are the same."""
    weights_CN = contrasts_of(texts, concepts)
    mean_CD = weights_CN @ residual_ND.double()
    if method == "mean":
        return mean_CD
    if method == "pca":
        return torch.stack(
            [_principal(residual_ND, weights_N, mean_D) for weights_N, mean_D in zip(weights_CN, mean_CD, strict=True)]
        )
    return _logistic(centred(residual_ND, texts), texts, concepts)


def _principal(residual_ND: Tensor, weights_N: Tensor, mean_D: Tensor) -> Tensor:
    """The first principal direction of differences from the negatives' mean, signed as the mean difference is.

    The differences are not centred, as in A. Zou et al., "Representation engineering", 2023: what all of them share is
    what is looked for.
    """
    positives = weights_N > 0
    differences_PD = residual_ND[positives].double() + (weights_N.clamp(max=0) @ residual_ND.double())
    direction_D = torch.linalg.svd(differences_PD, full_matrices=False).Vh[0]
    return direction_D * torch.sign(direction_D @ mean_D)


def _logistic(centred_ND: Tensor, texts: Sequence[Text], concepts: Sequence[str]) -> Tensor:
    """Weights of a logistic regression of each concept against the rest, both sides weighing the same in sum."""
    x_ND = centred_ND / centred_ND.std().clamp_min(1e-12)
    y_NC = torch.tensor([[float(one.concept == concept) for concept in concepts] for one in texts]).double()
    share_C = y_NC.mean(0).clamp(1e-6, 1 - 1e-6)
    weigh_NC = y_NC / (2 * share_C) + (1 - y_NC) / (2 * (1 - share_C))
    w_CD = torch.zeros(len(concepts), x_ND.shape[1], dtype=torch.float64, requires_grad=True)
    b_C = torch.zeros(len(concepts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w_CD, b_C], max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        # Each concept's loss is its own, so their sum has the same minimum.
        found = binary_cross_entropy_with_logits(x_ND @ w_CD.T + b_C, y_NC, weigh_NC, reduction="sum") / len(texts)
        (found + PENALTY * w_CD.square().sum()).backward()
        return found + PENALTY * w_CD.square().sum()

    with torch.enable_grad():
        optimizer.step(loss)
    return w_CD.detach()


def unit_vectors(
    by_layer: Mapping[int, Tensor], texts: Sequence[Text], concepts: Sequence[str], method: Method
) -> dict[int, Tensor]:
    """Directions of unit length by layer, [C, D] float32.

    Raises:
        DataError: positives and negatives of a concept are the same.
    """
    found = {}
    for layer, residual_ND in by_layer.items():
        direction_CD = directions(residual_ND, texts, concepts, method)
        scale = residual_ND.double().norm(dim=1).mean()
        flat = [name for name, size in zip(concepts, direction_CD.norm(dim=1), strict=True) if size <= 1e-9 * scale]
        if flat:
            raise DataError(
                f"at layer {layer} the model sees no difference between {flat[0]} and the rest",
                where=f"corpus, {flat[0]}",
                remedy="write texts that differ at the token that is read, or read them with --position mean",
            )
        found[layer] = normalize(direction_CD, dim=1).float()
    return found
