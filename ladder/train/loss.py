"""From a batch and its sources to the reduced loss: where the data room's indices meet ``distill``'s mathematics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ladder.data.batches import SOURCES, WRITTEN, Batch
from ladder.distill import (
    IGNORE,
    Ahead,
    Columns,
    Forecast,
    FusedLoss,
    FusedResult,
    Objective,
    Prior,
    Route,
    RoutingSettings,
    Source,
    Spread,
    Student,
    Teachers,
    Tokens,
    answering,
    entropy,
    forecast,
    grouped,
    js_bounds,
    log_probabilities,
    onto,
    reduction_weights,
    route,
    row_means,
    source_counts,
    split,
    taught,
    teachers_evidence,
    unknown,
)
from ladder.errors import ManifestError
from ladder.exam.calibration import BINS
from ladder.manifest import Manifest
from ladder.methods import Method
from ladder.teachers import TopKSource
from ladder.train.worth import Heard, Worth, fusion_settings, sources_of

_ROWS = 1024
"""Tokens whose bounds are computed at a time, in float64 [n, K]."""


def js_doubt(tokens: Tokens, teachers: Teachers, settings: RoutingSettings) -> dict[str, Tensor]:
    """How many tokens are routed by the Jensen-Shannon divergence of two truncated teachers (``js_routed``), and of
    how many the true divergence may lie on the other side of the threshold (``js_uncertain``).

    Empty where the divergence is exact, no route depends on it, or more than two are compared. With granularity
    ``sequence`` the bounds are averaged over the rows, as the divergence is.
    """
    there = [source for source in teachers if source is not None]
    exact = any(not isinstance(source, TopKSource) or source.may_pass for source in there)
    if exact or len(there) != 2 or settings.routing not in ("agreement", "surprise"):
        return {}
    first, second = (cast(TopKSource, source) for source in there)
    routed_N = _by_divergence(tokens.on_host, settings) & first.heard_N & second.heard_N
    host_n = routed_N.nonzero().squeeze(-1)
    rows_n = onto(host_n, tokens.labels_N.device)
    lower_n, upper_n = _bounds(first, second, rows_n)
    if settings.granularity == "sequence":
        lower_n, upper_n = row_means((lower_n, upper_n), tokens.on_host.row_N[host_n])
    doubtful_n = (lower_n < settings.js_threshold) & (upper_n >= settings.js_threshold)
    return {"js_routed": onto(routed_N.sum(), rows_n.device), "js_uncertain": doubtful_n.sum()}


def _by_divergence(tokens: Tokens, settings: RoutingSettings) -> Tensor:
    """Tokens whose route reads the divergence, bool [N]: none of a dream, with surprise routing none with a label."""
    awake_N = tokens.kept_N & (tokens.dreamer_N == 0)
    return awake_N & (tokens.labels_N == IGNORE) if settings.routing == "surprise" else awake_N


def _bounds(first: TopKSource, second: TopKSource, rows_n: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest divergence of these tokens, float64 [n]."""
    nothing = (torch.zeros(0, dtype=torch.float64, device=rows_n.device),) * 2
    parts = [js_bounds(*first.likeliest(part), *second.likeliest(part)) for part in split(rows_n, _ROWS)]
    lower_n, upper_n = (torch.cat(each) for each in zip(*(parts or [nothing]), strict=True))
    return lower_n, upper_n


MOST_FORECAST = 64
"""Tokens of a micro-batch of which a forecast is made."""
MOST_ENTROPY = 64
"""Tokens of a micro-batch whose entropy is read."""


@dataclass(frozen=True, eq=False)
class Routed:
    """A micro-batch, its teachers, and what is decided before the student is asked: all that counting needs."""

    batch: Batch
    teachers: Teachers
    tokens: Tokens
    source_N: Tensor
    ahead: Ahead
    heard: Heard
    prior: Prior | None
    first_N: Tensor
    """Tokens of examples that are read for the first time, bool."""
    row_weight_N: Tensor | None = None
    """How much each token counts beside the others of its source; None where all count alike."""

    @property
    def dream_N(self) -> Tensor:
        return self.tokens.dreamer_N > 0


@dataclass(frozen=True)
class Loss:
    """The loss of one run: the fused loss of its objective, the shares of the sources of a batch, what its teachers
    are worth, which changes from step to step, and whether its student writes."""

    fused: FusedLoss
    shares_S: tuple[float, ...]
    worth: Worth
    writes: bool = False

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        method: Method,
        tokenizer: PreTrainedTokenizerFast,
        compile: bool = False,
        teachers: Collection[int] = (),
    ) -> Loss:
        """That of a manifest; ``teachers`` are the numbers of all that the run has, also of those that only dream."""
        shares = manifest.training_params.shares
        taboo = taboo_ids(manifest, tokenizer)
        fused = method.loss(len(tokenizer), taboo, compile=compile)
        numbers = method.teachers() | method.dreamers()
        sources = {number: names for number, names in sources_of(manifest).items() if number in numbers}
        worth = Worth(sources, fusion_settings(manifest, method), fused.settings, teachers)
        writes = manifest.training_params.written is not None
        return cls(fused, tuple(getattr(shares, source) for source in SOURCES), worth, writes)

    def routed(self, batch: Batch, sources: Mapping[int, Source], device: torch.device) -> Routed:
        """Decide what must be decided before the step's tokens can be counted."""
        labels_N, source_N, dreamer_N, example_N = (
            torch.from_numpy(array.copy())
            for array in (batch.labels_N, batch.source_N, batch.dreamer_N, batch.example_N)
        )
        # Each teacher in the slot of its number; the first two are always there, because dreams are known by them.
        teachers = [sources.get(number) for number in range(1, self.worth.teachers + 1)]
        # Checked and decided by on the CPU, where they come from.
        tokens = Tokens.of(labels_N, dreamer_N, example_N, self.fused.columns).to(device)
        group_N, first_N = onto(source_N, device), onto(torch.from_numpy(batch.first_N), device)
        heard = self.worth.heard(teachers, group_N)
        prior = self.worth.prior(heard)
        ahead = self.fused.route_ahead(tokens, teachers, prior)
        weight_N = None if batch.weight_N is None else onto(torch.from_numpy(batch.weight_N), device)
        return Routed(batch, teachers, tokens, group_N, ahead, heard, prior, first_N, weight_N)

    def counts(self, item: Routed) -> Tensor:
        """Trained tokens of each source [S] in one micro-batch, skipped ones not counted."""
        return source_counts(item.ahead.trained_N, item.source_N, len(SOURCES))

    def __call__(
        self, student: Student, item: Routed, counts_S: Tensor, spread: Spread | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the reduced loss (sum the parts), and sums for the report; under ``worth`` what
        ``Worth.update`` takes."""
        shares_S = torch.tensor(self.shares_S, device=counts_S.device)
        weight_N = reduction_weights(item.ahead.trained_N, item.source_N, counts_S, shares_S)
        if item.row_weight_N is not None:
            weight_N = weight_N * item.row_weight_N.to(weight_N.dtype)
        result = self.fused(student, item.teachers, item.tokens, item.ahead, weight_N, item.prior, spread)
        doubt = js_doubt(item.tokens, item.teachers, self.fused.settings)
        worth = self.worth.tallies(item.heard, item.tokens, item.first_N, result.told, result.routing)
        sums = _sums(result, item, self.fused.objective) | _binned(result, item) | doubt
        if self.writes:
            sums |= _written(item)
        return result.total, sums | {"worth": worth}

    @torch.no_grad()
    def entropy(self, student: Student, item: Routed) -> dict[str, Tensor]:
        """Entropy of the student's predictions in nats, summed over trained tokens spread evenly over the micro-batch
        (``entropy``), and their number (``entropy_tokens``)."""
        rows_n = item.ahead.trained_N.nonzero().squeeze(-1)
        some_n = rows_n[torch.linspace(0, len(rows_n) - 1, min(MOST_ENTROPY, len(rows_n))).long()]
        log_p_nV = log_probabilities(_all_logits(student, some_n, self.fused.columns))
        return {"entropy": entropy(log_p_nV).sum(), "entropy_tokens": torch.tensor(len(some_n))}

    def forecast(self, item: Routed, rows_n: Tensor) -> Forecast:
        """What will not be learned of some tokens of a micro-batch: whole examples, and no dreams. At most
        ``MOST_FORECAST`` of those that no teacher knows are looked at."""
        fused, tokens, found = self.fused, item.tokens, Forecast()
        if all(source is None for source in item.teachers):
            return found
        host_n = rows_n.cpu()
        asked_N = torch.zeros(len(tokens), dtype=torch.bool).index_fill(0, host_n, True)
        for slots, group_n in grouped(answering(item.teachers, asked_N), host_n):
            speakers = [source for slot in slots if (source := item.teachers[slot]) is not None]
            if not speakers:
                continue
            some_n = onto(group_n, rows_n.device)
            part, evidence = tokens.at(some_n), teachers_evidence(fused, tokens, speakers, some_n)
            routing = route(evidence, part.labels_N, fused.settings, None, part.row_N)
            logits = [_all_logits(source, some_n, fused.columns) for source in speakers]
            labels_n = fused.columns.relabel(part.labels_N)
            unknown_n = unknown(logits, labels_n).nonzero().squeeze(-1)[: MOST_FORECAST - found.unknown]
            told = [logits_nV[unknown_n] for logits_nV in logits]
            found += forecast(told, labels_n[unknown_n], routing.at(unknown_n), fused.objective)
        return found


def _all_logits(source: Source | Student, rows_n: Tensor, columns: Columns) -> Tensor:
    """A model's logits of these tokens over the columns that take part."""
    out_nV = torch.empty(len(rows_n), columns.head_size, device=rows_n.device)
    return columns.select(source.logits(rows_n, out_nV))


def _sums(result: FusedResult, item: Routed, objective: Objective) -> dict[str, Tensor]:
    """What is added up over micro-batches for the report."""
    kept_N, losses, by_teacher_N = item.tokens.kept_N, result.losses, taught(result.routing)
    kd_N, varies, at_N = losses.kd.where(by_teacher_N, 0.0), objective.variance is not None, result.seen.temperature
    kl = (kd_N / at_N.where(by_teacher_N, 1.0) ** 2).sum() if varies else kd_N.sum() / objective.temperature**2
    return {
        "loss": result.total.detach(),
        **{name: getattr(losses, name).sum() for name in ("ce", "kd", "regularizer")},
        # The term is T^2 times the divergence, and cross-entropy on gold.
        "kl": kl,
        **({"temperature": at_N.where(by_teacher_N, 0.0).sum()} if varies else {}),
        "by_teacher": by_teacher_N.sum(),
        "trained": kept_N.sum(),
        "taught": result.routing.trained_N.sum(),
        "tokens": torch.tensor(item.batch.tokens),
        **{
            f"route.{kind.name.lower()}": (kept_N & ~item.dream_N & (result.routing.route_N == kind)).sum()
            for kind in Route
        },
        "route.dream": (kept_N & item.dream_N).sum(),
    }


def _written(item: Routed) -> dict[str, Tensor]:
    """Tokens that the student wrote and its parent scored, which are told apart from dreams."""
    dream_N = item.tokens.kept_N & item.dream_N
    written_N = dream_N & (item.source_N == SOURCES.index(WRITTEN))
    return {"route.dream": (dream_N & ~written_N).sum(), "route.written": written_N.sum()}


def _binned(result: FusedResult, item: Routed) -> dict[str, Tensor]:
    """Gold tokens that are not dreams by the exam's bins of the student's confidence: how many, their confidences, and
    how many of their labels it puts first. Sums, so that they add up over micro-batches and ranks."""
    counted_N = item.tokens.kept_N & ~item.dream_N & (item.tokens.labels_N != IGNORE)
    bin_N = (result.seen.confidence * BINS).long().clamp(0, BINS - 1)
    columns_3N = torch.stack([counted_N.to(torch.float64), result.seen.confidence, result.seen.right])
    sums_3B = torch.zeros(3, BINS, dtype=torch.float64, device=bin_N.device)
    sums_3B.index_add_(1, bin_N, columns_3N.where(counted_N, 0.0))
    names = (f"ece.{what}.{place}" for what in ("tokens", "confidence", "right") for place in range(BINS))
    own_N = result.own_temperature
    own = {} if own_N is None else {"own_temperature": own_N.where(counted_N, 0.0).sum()}
    return dict(zip(names, sums_3B.flatten().unbind(), strict=True)) | own


def calibration_error(totals: Mapping[str, float]) -> float | None:
    """Expected calibration error from what ``Loss`` added up; None where no gold token was trained. The same figure as
    the exam's (``ladder.exam.ece``), of tokens instead of answers."""
    tokens = sum(totals[f"ece.tokens.{place}"] for place in range(BINS))
    gaps = (abs(totals[f"ece.confidence.{place}"] - totals[f"ece.right.{place}"]) for place in range(BINS))
    return sum(gaps) / tokens if tokens else None


def taboo_ids(manifest: Manifest, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Ids that are never learned or written: single-token words, the first token of longer ones, and listed ids.

    A word counts with and without a leading space, lower case and capitalised.
    """
    stabilizers = manifest.stabilizers
    if not stabilizers.token_masking:
        return ()
    cased = {form for word in stabilizers.taboo_words for form in (word, word.lower(), word.capitalize())}
    spellings = cased | {f" {form}" for form in cased}
    encoded = (tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings)
    found = {ids[0] for ids in encoded if ids} | set(stabilizers.taboo_token_ids)
    _check_range(found, len(tokenizer))
    return tuple(sorted(found))


def _check_range(ids: Iterable[int], size: int) -> None:
    outside = sorted(token for token in ids if token >= size)
    if outside:
        raise ManifestError(
            f"ids {outside} are outside the vocabulary of {size}",
            where="stabilizers.taboo_token_ids",
            remedy=f"use ids below {size}",
        )
