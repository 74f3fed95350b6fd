"""What two truncated distributions say for certain about their Jensen-Shannon divergence.

Of p only the likeliest tokens are known, of q only its own likeliest. Merge all tokens but those known of both into one
cell. Merging can only lower the divergence (data processing inequality), so the divergence over the merged cells is a
lower bound. What merging lost is the divergence inside that cell, which is largest when p and q share no token there:
then each token of the cell contributes ln 2 times its half of p or q.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ladder.distill.divergence import LN2


@torch.no_grad()
def js_bounds(ids1_nK: Tensor, log_p1_nK: Tensor, ids2_nL: Tensor, log_p2_nL: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest Jensen-Shannon divergence, float64 [n] in nats, 0 to ln 2.

    The gap is m H(share) and at most m ln 2, where m is the mean mass of the two teachers in the merged cell and share
    is teacher 1's part of it: nothing when the tokens known of both carry all mass.

    Args:
        ids1_nK: token ids, distinct within a row, in any order.
        log_p1_nK: their log-probabilities in the full distribution (not renormalised), at the temperature of the bound.
    """
    p_nK = log_p1_nK.double().exp()
    q_nK = _looked_up(ids1_nK, ids2_nL, log_p2_nL)
    common_nK = q_nK >= 0
    p_nK, q_nK = p_nK.where(common_nK, 0.0), q_nK.where(common_nK, 0.0)
    shared_n = _contribution(p_nK, q_nK).sum(-1)
    p_rest_n, q_rest_n = ((1 - mass_nK.sum(-1)).clamp(0.0, 1.0) for mass_nK in (p_nK, q_nK))
    lower_n = shared_n + _contribution(p_rest_n, q_rest_n)
    upper_n = shared_n + LN2 * (p_rest_n + q_rest_n) / 2
    return lower_n.clamp(0.0, LN2), upper_n.clamp(0.0, LN2)


def js_deviation(js_n: Tensor, lower_n: Tensor, upper_n: Tensor) -> Tensor:
    """How far the true divergence can lie from a computed one, [n] in nats, for bounds of :func:`js_bounds`."""
    return torch.maximum(upper_n - js_n, js_n - lower_n).clamp_min(0.0)


def _contribution(p: Tensor, q: Tensor) -> Tensor:
    """1/2 p ln(p/m) + 1/2 q ln(q/m) with m = (p + q) / 2, element by element; 0 ln 0 counts as 0."""
    mean = (p + q) / 2
    return (torch.special.xlogy(p, p) + torch.special.xlogy(q, q)) / 2 - torch.special.xlogy(mean, mean)


def _looked_up(ids_nK: Tensor, among_nL: Tensor, log_q_nL: Tensor) -> Tensor:
    """Probability of each id among those of the other row, float64 [n, K]; -1 where it is not there."""
    sorted_nL, order_nL = among_nL.long().sort(-1)
    ids_nK = ids_nK.long().contiguous()
    place_nK = torch.searchsorted(sorted_nL, ids_nK).clamp_max(among_nL.shape[-1] - 1)
    q_nK = log_q_nL.double().exp().gather(-1, order_nL.gather(-1, place_nK))
    return q_nK.where(sorted_nL.gather(-1, place_nK) == ids_nK, -1.0)
