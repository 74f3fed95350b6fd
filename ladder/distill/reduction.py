"""From token losses to one number: each source of a batch is averaged by itself, then weighed by its share."""

from __future__ import annotations

import torch
from torch import Tensor

from ladder.distill.routing import Route


def route_shares(route_N: Tensor) -> dict[str, int]:
    """Tokens on each route, under its name in small letters: ``{"skip": 3, "gold": 12, ...}``. Every route is named.

    Counts, so that they add up over micro-batches and ranks.
    """
    counts_R = torch.bincount(route_N.long(), minlength=len(Route)).tolist()
    return {kind.name.lower(): counts_R[kind] for kind in Route}


def source_counts(trained_N: Tensor, source_N: Tensor, n_sources: int) -> Tensor:
    """Trained tokens of each source, int64 [S]. Add them up over micro-batches and ranks.

    Args:
        trained_N: False on SKIP, bool [N].
        source_N: index of each token's source, 0 to S-1, int [N].
        n_sources: S.
    """
    counts_S = torch.zeros(n_sources, dtype=torch.int64, device=source_N.device)
    return counts_S.index_add_(0, source_N.long(), trained_N.long())


def reduction_weights(trained_N: Tensor, source_N: Tensor, counts_S: Tensor, shares_S: Tensor) -> Tensor:
    """Weight of each token, [N] in the dtype of the shares; the loss of the step is the sum of weight * loss.

    share_s / count_s, with the shares normalised over the sources that have a trained token, and 0 on SKIP. All 0
    where nothing is trained, or only sources whose share is 0.

    Args:
        trained_N: which tokens of this micro-batch are trained, False on SKIP, bool [N].
        source_N: index of each token's source, int [N].
        counts_S: trained tokens of each source in the whole step, int [S].
        shares_S: share of each source, at least 0, float [S].
    """
    present_S = shares_S.where(counts_S > 0, 0.0)
    total = present_S.sum()
    weight_S = (present_S / (total * counts_S)).where(present_S > 0, 0.0)
    return weight_S[source_N.long()].where(trained_N, 0.0)
