"""What teachers are worth: their error on gold labels, the weights that follow from it, and which sources harm.

Nothing here sees a vocabulary: a blend of probabilities gives a gold label the weighted mean of what its teachers give
it, so a number for each teacher and token is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ladder.errors import LadderError

BINS = 10
"""Even bins of confidence, 0 to 1."""
SHRINKAGE = 32.0
"""Tokens that a coarser mean counts for beside those of the finer one."""
MOST_SURPRISAL = 30.0
"""In nats. What is less likely than e^-30 counts as that, so that one token of probability 0 is no infinite error."""
LEAST_FACTOR = 0.05
"""Of a throttle. What weighs nothing at all could never show that it helps again."""
RATE = 0.5
"""Of a throttle: how far its logarithm moves in a step in which a source harms by its whole weight."""
TOLERANCE = 0.02
"""Of a throttle: harm per unit of weight that is forgiven at once."""
FORGIVENESS = 0.02
"""Of a throttle: the part of its logarithm that it loses in each step, whatever the source does."""
_GRAIN = 2.0**20
"""Statistics are rounded to 1 / 2^20 nats: sums of such numbers are exact in float64, so they are the same in whichever
order, micro-batches or ranks they are added."""


@dataclass(frozen=True)
class FusionSettings:
    """The part of ``training_params`` that says what teachers weigh in a blend; the manifest explains each field.

    Raises:
        LadderError: a number outside of its range.
    """

    word: Literal["confidence", "mean", "precision"] = "confidence"
    rho: float = 1.0
    floor: float = 0.05
    decay: float = 0.9
    throttle: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "rho": (self.rho >= 0, "at least 0"),
            "floor": (self.floor > 0, "above 0"),
            "decay": (0 <= self.decay < 1, "0 <= decay < 1"),
        }
        for name, (fits, expected) in ranges.items():
            if not (fits and math.isfinite(getattr(self, name))):
                found = getattr(self, name)
                raise LadderError(f"found {found}, expected {expected}", where=f"training_params.fusion_{name}")

    @property
    def measures(self) -> bool:
        """Whether weights depend on what was measured, so that a run has a state of it."""
        return self.word == "precision" or self.throttle


def bins_of(confidence: Tensor) -> Tensor:
    """Index of the bin of each confidence, int64, 0 to ``BINS`` - 1. What is no number is in the first."""
    return (confidence.nan_to_num(0.0) * BINS).long().clamp(0, BINS - 1)


def errors_at(errors_KGB: Tensor, confidence_Kn: Tensor, group_n: Tensor) -> Tensor:
    """The tracked error of each teacher at each token in nats, [K, n], looked up without waiting for a GPU.

    Args:
        errors_KGB: of :meth:`Reliability.errors`, on the device of the tokens.
        confidence_Kn: confidence of each teacher, 0 to 1.
        group_n: row group of each token, int64.
    """
    K, G, B = errors_KGB.shape
    first_K1 = torch.arange(K, device=errors_KGB.device).unsqueeze(-1) * (G * B)
    return errors_KGB.flatten()[first_K1 + group_n * B + bins_of(confidence_Kn)]


def precision_weights(error_Kn: Tensor, rho: float, floor: float, speaks_Kn: Tensor | None = None) -> Tensor:
    """Share of each teacher in a blend, [K, n]: (e_i - min e + floor)^-rho over its sum. ``rho`` 0 is the plain mean.

    Inverse-variance weighting (Cochran 1937) with, for a variance, what a teacher costs beyond the best one. The error
    itself would let what no teacher can know drown what sets them apart; the floor says which difference is none.

    Args:
        error_Kn: in nats; anything where a teacher is silent.
        rho: at least 0.
        floor: in nats, above 0.
        speaks_Kn: who says something, bool; everybody when left out. Who does not has no share, and where nobody does,
            all shares are 0.
    """
    if speaks_Kn is None:
        speaks_Kn = torch.ones_like(error_Kn, dtype=torch.bool)
    least_n = error_Kn.masked_fill(~speaks_Kn, math.inf).amin(0)
    excess_Kn = (error_Kn - least_n).where(speaks_Kn, 0.0).double()
    # Times floor^rho, which the sum takes out again: at most 1, so that it never overflows.
    tau_Kn = (-rho * torch.log1p((excess_Kn / floor).clamp_max(1e300))).exp()
    return to_shares(tau_Kn.where(speaks_Kn, 0.0)).to(error_Kn.dtype)


def throttled(weight_Kn: Tensor, factor_S: Tensor, source_Kn: Tensor) -> Tensor:
    """Weights [K, n] times the throttle of each one's source, over their sum. Who weighs alone keeps everything.

    Args:
        weight_Kn: at least 0; 0 where a teacher has no share.
        factor_S: of :meth:`Throttle.factors`, on the device of the tokens.
        source_Kn: which source each teacher speaks for, int64; anything below 0 where it is silent.
    """
    return to_shares(weight_Kn * factor_S.to(weight_Kn.dtype)[source_Kn.clamp_min(0)])


def to_shares(weight_Kn: Tensor) -> Tensor:
    """Weights [K, n], at least 0, over their sum; all 0 where that is 0."""
    total_n = weight_Kn.sum(0)
    return weight_Kn / total_n.where(total_n > 0, 1.0)


def error_tallies(
    surprisal_Kn: Tensor,
    confidence_Kn: Tensor,
    group_n: Tensor,
    counted_Kn: Tensor,
    groups: int,
    may_pass_K: Tensor | None = None,
) -> Tensor:
    """Sums of :func:`excess_of` and counts of tokens, float64 [2, K, G, B]. Add them up over micro-batches and ranks.

    Args:
        surprisal_Kn: -ln p_k(y) of the gold label; anything where it is not counted.
        confidence_Kn: 0 to 1.
        group_n: row group of each token, 0 to G - 1, int64.
        counted_Kn: tokens with a gold label that are read for the first time and of which the teacher says something,
            bool [K, n], or [n] for all teachers. A token that has one speaker tells nothing, and is not counted.
        groups: G.
        may_pass_K: as in :func:`excess_of`.
    """
    K = len(surprisal_Kn)
    counted_Kn = counted_Kn.expand(surprisal_Kn.shape)
    excess_Kn = excess_of(surprisal_Kn, counted_Kn, may_pass_K)
    compared_Kn = counted_Kn & (counted_Kn.sum(0) > 1)
    first_K1 = torch.arange(K, device=group_n.device).unsqueeze(-1) * (groups * BINS)
    cell_Kn = first_K1 + group_n * BINS + bins_of(confidence_Kn)
    values = _rounded(excess_Kn), torch.ones_like(excess_Kn)
    return _summed(values, cell_Kn, compared_Kn, K * groups * BINS).view(2, K, groups, BINS)


def excess_of(surprisal_Kn: Tensor, speaks_Kn: Tensor, may_pass_K: Tensor | None = None) -> Tensor:
    """By how much the gold label surprises each teacher more than the plain mixture of those that always speak, float64
    [K, n] in nats: -ln p_k(y) + ln mean of p_j(y). 0 where a teacher is silent, or speaks alone.

    Weights need differences of errors alone. Their own surprisals would do, were they averaged over the same tokens;
    but bins of confidence are each teacher's own, and the tokens of which a teacher is sure are easy ones. Against the
    mixture, what makes a token hard for everybody cancels. Whoever may pass is measured against that mixture, too, and
    has no part in it: else the others would look worse in those bins in which it happens to speak, and weigh less there
    where it is silent. Where nobody else speaks, the mixture is of all that do.

    Args:
        surprisal_Kn: -ln p_k(y) in nats; above ``MOST_SURPRISAL``, and where it is no number, it counts as that.
        may_pass_K: teachers that may have nothing to say about a token, bool; nobody when left out.
    """
    surprisal_Kn, mixed_Kn = _bounded(surprisal_Kn), speaks_Kn
    if may_pass_K is not None:
        steady_Kn = speaks_Kn & ~may_pass_K.unsqueeze(-1)
        mixed_Kn = steady_Kn.where(steady_Kn.any(0), speaks_Kn)
    mixture_n = (-surprisal_Kn).masked_fill(~mixed_Kn, -math.inf).logsumexp(0) - mixed_Kn.sum(0).log()
    return (surprisal_Kn + mixture_n).where(speaks_Kn, 0.0)


def harm_of(surprisal_Kn: Tensor, weight_Kn: Tensor) -> Tensor:
    """What the blend loses by each teacher, float64 [K, n] in nats: ln p(gold) without it less ln p(gold) with it.

    Above 0 where the label would be likelier without it; 0 where it is silent or speaks alone. Exact for a mixture of
    probabilities, p(y) = sum of w_k p_k(y). A log-linear pool would need every teacher's whole distribution for its
    normaliser: there this still says what the mixture with the same weights loses, and stands in for it.

    Args:
        surprisal_Kn: -ln p_k(y) in nats; anything where the weight is 0.
        weight_Kn: at least 0, as they are without a throttle: what is throttled must be able to show that it helps.
    """
    weight_Kn = weight_Kn.double()
    log_p_Kn = (weight_Kn.log() - _bounded(surprisal_Kn)).where(weight_Kn > 0, -math.inf)
    apart_KK1 = torch.eye(len(weight_Kn), dtype=torch.bool, device=weight_Kn.device).unsqueeze(-1)
    without_Kn = log_p_Kn.masked_fill(apart_KK1, -math.inf).logsumexp(1)
    left_Kn = weight_Kn.unsqueeze(0).masked_fill(apart_KK1, 0.0).sum(1)
    harm_Kn = without_Kn - left_Kn.log() - (log_p_Kn.logsumexp(0) - weight_Kn.sum(0).log())
    return harm_Kn.where((weight_Kn > 0) & ((weight_Kn > 0).sum(0) > 1), 0.0)


RECEIPTS = ("tokens", "weight", "measured", "harm", "trial")
"""Sums of a source over the tokens of a step: tokens that it had a share in, and its share there, throttled as it was;
then, over gold labels of which it and others say something: their number, its harm in nats, and what its harm would be
per unit of weight if all who speak weighed the same.

So tokens / all taught tokens is the part it taught, weight / tokens its mean weight, harm / measured its mean harm."""


def source_tallies(
    weight_Kn: Tensor,
    surprisal_Kn: Tensor,
    unthrottled_Kn: Tensor,
    source_Kn: Tensor,
    counted_n: Tensor,
    sources: int,
) -> Tensor:
    """The sums of ``RECEIPTS`` for each source, float64 [5, S]. Add them up over micro-batches and ranks.

    Args:
        weight_Kn: shares in the target as it is learned; 0 where a teacher does not teach.
        surprisal_Kn: -ln p_k(y) of the gold label; anything where there is none, NaN where a teacher was not asked.
        unthrottled_Kn: shares that a blend of the same teachers would have without a throttle, whether or not the token
            was routed to a blend; harm is measured with these.
        source_Kn: which source each teacher speaks for, 0 to S - 1, int64; a source belongs to one teacher. Anything
            below 0 where it is silent.
        counted_n: tokens whose gold label may judge, bool.
        sources: S.
    """
    heard_Kn, ones_Kn = source_Kn >= 0, torch.ones_like(weight_Kn, dtype=torch.float64)
    speaks_Kn, place_Kn = heard_Kn & ~surprisal_Kn.isnan(), source_Kn.clamp_min(0)
    speakers_n = speaks_Kn.sum(0)
    harm_Kn = harm_of(surprisal_Kn, unthrottled_Kn.where(speaks_Kn, 0.0))
    trial_Kn = harm_of(surprisal_Kn, speaks_Kn.double()) * speakers_n
    taught, judged = (ones_Kn, _rounded(weight_Kn)), (ones_Kn, _rounded(harm_Kn), _rounded(trial_Kn))
    parts = [
        _summed(taught, place_Kn, heard_Kn & (weight_Kn > 0), sources),
        _summed(judged, place_Kn, speaks_Kn & (speakers_n > 1) & counted_n, sources),
    ]
    return torch.cat(parts)


def _bounded(surprisal: Tensor) -> Tensor:
    """In float64, at most ``MOST_SURPRISAL``; what is no number is that."""
    return surprisal.double().nan_to_num(MOST_SURPRISAL, MOST_SURPRISAL).clamp_max(MOST_SURPRISAL)


def _rounded(value: Tensor) -> Tensor:
    return (value.double() * _GRAIN).round() / _GRAIN


def _summed(values: tuple[Tensor, ...], place_Kn: Tensor, counted_Kn: Tensor, places: int) -> Tensor:
    """Sums of each of the values by place where they count, float64 [values, places]."""
    index = place_Kn.flatten()
    rows = torch.stack([value_Kn.where(counted_Kn, 0.0).flatten() for value_Kn in values])
    return torch.zeros(len(values), places, dtype=torch.float64, device=rows.device).index_add_(1, index, rows)


class Reliability:
    """The tracked error of K teachers on gold labels (:func:`excess_of`), by G row groups and bins of confidence.

    Sums and counts both decay, so their ratio is an exponential moving average that weighs tokens, not steps, and needs
    no correction for its start (Kingma & Ba 2015, section 3, with the true weights for 1 - beta^t). A cell decays
    only in steps that measure it: frozen teachers do not change while nobody looks.
    """

    def __init__(self, teachers: int, groups: int, decay: float = 0.9, device: torch.device | None = None) -> None:
        self.decay = decay
        self._state_2KGB = torch.zeros(2, teachers, groups, BINS, dtype=torch.float64, device=device)

    def update(self, tallies_2KGB: Tensor) -> None:
        """Take in what :func:`error_tallies` counted in a step, over all ranks."""
        self._state_2KGB = _decayed(self._state_2KGB, tallies_2KGB, tallies_2KGB[1] > 0, self.decay)

    def errors(self) -> Tensor:
        """The error of each cell in nats, float64 [K, G, B]; below 0 where a teacher is better than the mixture.

        The mean of a cell is shrunk to that of its row group, this one to the teacher's, and that to the mean of all
        teachers, each time as if ``SHRINKAGE`` further tokens had been seen with the coarser mean: an empirical Bayes
        estimate with a fixed prior strength (Efron & Morris 1973). So what was not measured is what is known of it, and
        before anything was measured all teachers are equal.
        """
        sums_KGB, counts_KGB = self._state_2KGB
        count = counts_KGB.sum()
        mean = sums_KGB.sum() / count.where(count > 0, 1.0)
        mean_K11 = _shrunk(sums_KGB.sum((1, 2), True), counts_KGB.sum((1, 2), True), mean)
        mean_KG1 = _shrunk(sums_KGB.sum(2, True), counts_KGB.sum(2, True), mean_K11)
        return _shrunk(sums_KGB, counts_KGB, mean_KG1)

    def means(self) -> list[float | None]:
        """The error of each teacher over all that was measured of it, in nats; None where nothing was."""
        sums_K, counts_K = self._state_2KGB.sum((2, 3)).tolist()
        return [total / count if count else None for total, count in zip(sums_K, counts_K, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint; on the CPU."""
        return {"errors": self._state_2KGB.cpu().clone()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the state of a checkpoint, bit for bit.

        Raises:
            LadderError: it is of other teachers or row groups.
        """
        self._state_2KGB = _same_shape(tensors["errors"], self._state_2KGB, "errors of teachers")


class Throttle:
    """A factor for each of S sources, ``LEAST_FACTOR`` to 1: it falls while the source harms and rises while it helps.

    Multiplicative weights (Freund & Schapire 1997, "A decision-theoretic generalization of on-line learning") on
    discounted losses (Chernov & Zhdanov 2010, "Prediction with expert advice under discounted loss"): with h the recent
    harm of the source per unit of weight, cut off at -1 and 1, the logarithm of its factor loses a part
    ``FORGIVENESS`` of itself in each step and moves by ``RATE`` (``TOLERANCE`` - h). So one that harms a little falls a
    little, one that harms much is at the bound within a few steps, and one that stopped is back within a hundred,
    because what is at its bound owes nothing beyond it (Herbster & Warmuth 1998, "Tracking the best expert").

    Harm is tried at equal weights of all who speak of a token, whatever they weigh in the target: whoever has next to
    no weight harms next to nothing, and what it is worth could not be seen. Per unit of weight, harm is then close to
    the slope of -ln p(gold) along that weight (Helmbold et al. 1997, "A comparison of new and old algorithms for a
    mixture estimation problem"). A factor depends on the harm of its own source alone: none falls for being the
    largest.
    """

    def __init__(self, sources: int, decay: float = 0.9, device: torch.device | None = None) -> None:
        self.decay = decay
        self._trial_2S = torch.zeros(2, sources, dtype=torch.float64, device=device)
        self._log_factor_S = torch.zeros(sources, dtype=torch.float64, device=device)

    def update(self, tallies_5S: Tensor) -> None:
        """Take in what :func:`source_tallies` counted in a step, over all ranks. What was not judged stays as it is."""
        _, _, measured_S, _, trial_S = tallies_5S.to(self._trial_2S.device)
        judged_S = measured_S > 0
        self._trial_2S = _decayed(self._trial_2S, torch.stack([trial_S, measured_S]), judged_S, self.decay)
        moved_S = (1 - FORGIVENESS) * self._log_factor_S + RATE * (TOLERANCE - self.harm().clamp(-1.0, 1.0))
        self._log_factor_S = moved_S.clamp(math.log(LEAST_FACTOR), 0.0).where(judged_S, self._log_factor_S)

    def harm(self) -> Tensor:
        """Recent harm of each source per unit of weight in nats, float64 [S]; 0 where nothing was measured."""
        trial_S, measured_S = self._trial_2S
        return trial_S / measured_S.where(measured_S > 0, 1.0)

    def factors(self) -> Tensor:
        """The factor of each source, float64 [S]; 1 where nothing was measured."""
        return self._log_factor_S.exp()

    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint; on the CPU."""
        return {"harm": self._trial_2S.cpu().clone(), "log_factor": self._log_factor_S.cpu().clone()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the state of a checkpoint, bit for bit.

        Raises:
            LadderError: it is of other sources.
        """
        self._trial_2S = _same_shape(tensors["harm"], self._trial_2S, "harm of sources")
        self._log_factor_S = _same_shape(tensors["log_factor"], self._log_factor_S, "throttles of sources")


def _decayed(state: Tensor, sums: Tensor, measured: Tensor, decay: float) -> Tensor:
    return (decay * state + sums.to(state.device)).where(measured.to(state.device), state)


def _shrunk(sums: Tensor, counts: Tensor, coarser: Tensor) -> Tensor:
    return (sums + SHRINKAGE * coarser) / (counts + SHRINKAGE)


def _same_shape(stored: Tensor, like: Tensor, what: str) -> Tensor:
    if stored.shape != like.shape:
        raise LadderError(
            f"found {tuple(stored.shape)} {what} in the checkpoint, expected {tuple(like.shape)}",
            where="teachers.others",
            remedy="install the versions of ladder and of the teachers' packages that the run began with, or begin "
            "anew under another evolution_request.child_gen",
        )
    return stored.to(like.device, like.dtype, copy=True)
