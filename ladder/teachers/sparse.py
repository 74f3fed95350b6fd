"""Few probabilities a token and an even rest, as the truncated distributions that cross the wire.

An even rest is exactly what a receiver rebuilds of top-k (``ladder.teachers.wire.rebuild``), at any temperature. So
nothing is lost, but where a teacher gives more probabilities than are kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ladder.errors import ModelError
from ladder.teachers.kinds import Sparse
from ladder.teachers.wire import TopK, Truncation

LEAST = 1e-6
"""Mass of the rest at least: a teacher that gives all of it to K tokens finds no other one impossible, because a
logarithm of 0 could not be blended."""
TOLERANCE = 1e-4
"""By which a row may sum to more than 1."""
_ROWS = 1024


def check_sparse(said: Sparse, tokens: int, vocabulary: int, whose: str, sources: int) -> None:
    """See that what a kind of teacher gave are distributions.

    Args:
        sources: how many the teacher has; none but these may speak.

    Raises:
        ModelError: says what is wrong, and at which token.
    """
    ids_NK, p_NK = np.asarray(said.ids_NK), np.asarray(said.probabilities_NK)
    if ids_NK.ndim != 2 or ids_NK.shape != p_NK.shape or len(ids_NK) != tokens:
        raise _wrong(whose, f"{list(ids_NK.shape)} ids and {list(p_NK.shape)} probabilities for {tokens} tokens")
    if said.origin_N is not None and np.asarray(said.origin_N).shape != (tokens,):
        raise _wrong(whose, f"{list(np.asarray(said.origin_N).shape)} origins for {tokens} tokens")
    if said.origin_N is not None and (far_N := np.asarray(said.origin_N) >= sources).any():
        token = int(np.flatnonzero(far_N)[0])
        raise _wrong(
            whose,
            f"origin {np.asarray(said.origin_N)[token]}, at token {token}; its `sources` names {sources}, "
            f"so expected -1 to {sources - 1}",
        )
    if not np.issubdtype(ids_NK.dtype, np.integer):
        raise _wrong(whose, f"ids of type {ids_NK.dtype}")
    heard_N = np.ones(tokens, bool) if said.origin_N is None else np.asarray(said.origin_N) >= 0
    used_NK = (p_NK != 0) & heard_N[:, None]
    sums_N = np.where(heard_N, p_NK.sum(-1, dtype=np.float64), 0.0)
    problems = {
        "a probability that is negative or not finite": ((~np.isfinite(p_NK) | (p_NK < 0)) & heard_N[:, None]).any(-1),
        "probabilities that sum to more than 1": sums_N > 1 + TOLERANCE,
        f"an id outside of the vocabulary of {vocabulary}": (((ids_NK < 0) | (ids_NK >= vocabulary)) & used_NK).any(-1),
        "one id twice": _twice(ids_NK, used_NK),
    }
    for problem, wrong_N in problems.items():
        if wrong_N.any():
            raise _wrong(whose, f"{problem}, at token {int(np.flatnonzero(wrong_N)[0])}")


def _twice(ids_NK: np.ndarray, used_NK: np.ndarray) -> np.ndarray:
    # What means nothing gets a number that nobody has.
    own_NK = np.where(used_NK, ids_NK.astype(np.int64), -1 - np.arange(ids_NK.shape[1]))
    return (np.diff(np.sort(own_NK, axis=-1), axis=-1) == 0).any(-1)


def _wrong(whose: str, found: str) -> ModelError:
    return ModelError(f"{whose} gave {found}", remedy="mend its `say`; docs/teachers.md tells what that returns")


@torch.no_grad()
def truncated(said: Sparse, next_ids_N: Tensor, truncation: Truncation) -> tuple[TopK, Tensor]:
    """The distributions over the tokens that take part, and the origin of each token, int32 [N]; -1 where the teacher
    is silent, because it said so or because all that it said is taboo. A silent row means nothing.

    Args:
        next_ids_N: the token that follows in the text.
    """
    ids_NK, p_NK = (torch.from_numpy(np.array(one)) for one in (said.ids_NK, said.probabilities_NK))
    told = np.zeros(len(ids_NK), np.int32) if said.origin_N is None else said.origin_N
    origin_N = torch.from_numpy(np.array(told, dtype=np.int32))
    starts = range(0, len(ids_NK), _ROWS) if len(ids_NK) else range(1)
    parts = []
    for start in starts:
        n = slice(start, start + _ROWS)
        spoken_n = origin_N[n] >= 0
        p_nK = p_NK[n].double().where(spoken_n.unsqueeze(-1), 0.0)
        parts.append(_truncated(ids_NK[n].long(), p_nK, next_ids_N[n], truncation))
    *fields, empty_N = (torch.cat(each) for each in zip(*parts, strict=True))
    return TopK(*fields), origin_N.where(~empty_N, -1)


def _truncated(ids_nK: Tensor, p_nK: Tensor, next_n: Tensor, truncation: Truncation) -> tuple[Tensor, ...]:
    """The fields of the truncated distributions of some tokens, float64 inside, and which of them are empty."""
    taboo, used_nK = torch.tensor(truncation.taboo_ids, dtype=torch.long), p_nK > 0
    rest_n = (1 - p_nK.sum(-1)).clamp_min(LEAST)
    others_n = truncation.vocabulary - used_nK.sum(-1)
    barred_nK = torch.isin(ids_nK, taboo) & used_nK
    # Of all other ids those that may be learned: a taboo one that was named is no other one.
    free_n = truncation.permitted - (used_nK & ~barred_nK).sum(-1)
    even_n = rest_n / others_n.clamp_min(1)
    kept_nK = p_nK.masked_fill(barred_nK, 0.0)
    mass_n = kept_nK.sum(-1) + even_n * free_n
    empty_n = used_nK.any(-1) & ~(kept_nK > 0).any(-1)
    mass_n = mass_n.masked_fill(mass_n <= 0, 1.0)
    q_nK, even_n = kept_nK / mass_n.unsqueeze(-1), even_n / mass_n
    entropy_n = -(torch.special.xlogy(q_nK, q_nK).sum(-1) + free_n * torch.special.xlogy(even_n, even_n))
    said_nK = (ids_nK == next_n.unsqueeze(-1)) & (q_nK > 0)
    next_p_n = (q_nK * said_nK).sum(-1).where(said_nK.any(-1), even_n)
    surprisal_n = (-next_p_n.log()).masked_fill(torch.isin(next_n, taboo), 0.0)
    filled_ids, filled = _filled(ids_nK, q_nK, even_n, truncation)
    left = truncation.permitted - truncation.kept
    tail_mass_n = (1 - filled.sum(-1)).clamp_min(1e-300) if ids_nK.shape[1] > truncation.kept else even_n * left
    none = float("-inf")
    log_tail_n = tail_mass_n.log() if left else torch.full_like(tail_mass_n, none)
    each_n = log_tail_n - float(np.log(max(left, 1)))
    at_T_n = float(np.log(max(left, 1))) + each_n / truncation.temperature
    figures = (log_tail_n, at_T_n, entropy_n, surprisal_n)
    return filled.log().float(), filled_ids.to(torch.int32), *(one.float() for one in figures), empty_n


def _filled(ids_nK: Tensor, q_nK: Tensor, even_n: Tensor, truncation: Truncation) -> tuple[Tensor, Tensor]:
    """``truncation.kept`` ids and their probabilities, descending: those that a teacher named, the likeliest of them
    where there are more, and as many that it did not name as are missing, each with its part of the rest."""
    width, named_nK = truncation.kept, q_nK > 0
    barred = torch.zeros(truncation.vocabulary, dtype=torch.bool)
    barred[list(truncation.taboo_ids)] = True
    spare = (~barred).nonzero().squeeze(-1)[: width + ids_nK.shape[1]]
    place_V = torch.full((truncation.vocabulary,), len(spare))
    place_V[spare] = torch.arange(len(spare))
    # One more column takes what is no spare id.
    taken = torch.zeros(len(ids_nK), len(spare) + 1, dtype=torch.bool)
    places_nK = place_V[ids_nK.clamp(0, truncation.vocabulary - 1)].masked_fill(~named_nK, len(spare))
    taken.scatter_(1, places_nK, True)
    spare_p = even_n.unsqueeze(-1).expand(-1, len(spare)).masked_fill(taken[:, :-1], -1.0)
    every_p = torch.cat([q_nK.masked_fill(~named_nK, -1.0), spare_p], -1)
    every_id = torch.cat([ids_nK, spare.expand(len(ids_nK), -1)], -1)
    # One that was named and is less likely than the even rest is no part of that.
    first = torch.cat([q_nK + 2 * named_nK, spare_p], -1).masked_fill(every_p < 0, -1.0)
    chosen = first.argsort(dim=-1, descending=True, stable=True)[:, :width]
    ids, p = every_id.gather(1, chosen), every_p.gather(1, chosen).clamp_min(1e-300)
    order = p.argsort(dim=-1, descending=True, stable=True)
    return ids.gather(1, order), p.gather(1, order)
