"""From a batch and its sources to the reduced loss: where the data room's indices meet ``distill``'s mathematics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ladder.data.batches import SOURCES
from ladder.data.collate import Batch
from ladder.distill import (
    Columns,
    Objective,
    Route,
    Routing,
    RoutingSettings,
    columns,
    gather_evidence,
    reduction_weights,
    route,
    source_counts,
    token_losses,
)
from ladder.errors import ManifestError
from ladder.manifest.schema import Manifest
from ladder.methods import Method
from ladder.signals.source import SignalSource


@dataclass(frozen=True)
class Routed:
    """A micro-batch whose tokens know who teaches them; everything that does not need the student."""

    batch: Batch
    teachers_NV: tuple[Tensor | None, Tensor | None]
    labels_N: Tensor
    source_N: Tensor
    dream_N: Tensor
    trained_N: Tensor
    routing: Routing


@dataclass(frozen=True)
class Loss:
    """The loss of one run: objective, routing table, shares of the sources, and which token ids take part."""

    objective: Objective
    settings: RoutingSettings
    shares_S: tuple[float, ...]
    vocabulary: int
    taboo_ids: tuple[int, ...]

    @classmethod
    def of(cls, manifest: Manifest, method: Method, tokenizer: PreTrainedTokenizerFast) -> Loss:
        shares = manifest.training_params.shares
        return cls(
            method.objective(),
            method.routing(),
            tuple(getattr(shares, source) for source in SOURCES),
            len(tokenizer),
            taboo_ids(manifest, tokenizer),
        )

    def columns(self, head_size: int) -> Columns:
        """Columns of a head that hold a real, permitted token."""
        return columns(head_size, self.vocabulary, self.taboo_ids)

    def counts(self, item: Routed) -> Tensor:
        """Trained tokens of each source [S] in one micro-batch, skipped ones not counted."""
        return source_counts(item.trained_N & (item.routing.route_N != Route.SKIP), item.source_N, len(SOURCES))

    def __call__(self, student_NV: Tensor, item: Routed, counts_S: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the reduced loss (sum the parts), and sums for the report."""
        losses = token_losses(
            self.columns(student_NV.shape[-1]).select(student_NV),
            *item.teachers_NV,
            item.labels_N,
            item.routing,
            self.objective,
            item.dream_N,
        )
        shares_S = torch.tensor(self.shares_S, device=student_NV.device)
        weight_N = reduction_weights(item.routing.route_N, item.source_N, counts_S, shares_S) * item.trained_N
        total = (weight_N * losses.loss).sum()
        kept_N = item.trained_N & (item.routing.route_N != Route.SKIP)
        sums = {
            "loss": total.detach(),
            **{name: (getattr(losses, name).detach() * kept_N).sum() for name in ("ce", "kd", "regularizer")},
            "trained": item.trained_N.sum(),
            "taught": kept_N.sum(),
            "tokens": torch.tensor(item.batch.tokens),
            **_route_counts(item),
        }
        return total, sums


def routed(batch: Batch, sources: Mapping[int, SignalSource], loss: Loss, device: torch.device) -> Routed:
    """Decide for each of the N tokens who teaches it."""
    labels_N, source_N, dreamer_N, example_N = (
        torch.from_numpy(array.copy()).to(device)
        for array in (batch.labels_N, batch.source_N, batch.dreamer_N, batch.example_N)
    )
    keep = loss.columns(loss.vocabulary)
    trained_N = ~keep.is_dropped(labels_N)
    labels_N = keep.relabel(labels_N)
    teacher1_NV, teacher2_NV = (_permitted(sources.get(number), loss) for number in (1, 2))
    evidence = None
    if loss.settings.routing != "gold":
        assert teacher1_NV is not None, "a method that blends has a teacher"
        evidence = gather_evidence(teacher1_NV, teacher2_NV, labels_N, loss.settings.confidence)
    # A dropped token is put into a row apart, so that it has no part in the mean of its own row.
    routing = route(evidence, labels_N, loss.settings, dreamer_N, example_N.where(trained_N, -1))
    return Routed(batch, (teacher1_NV, teacher2_NV), labels_N, source_N, dreamer_N > 0, trained_N, routing)


def _permitted(source: SignalSource | None, loss: Loss) -> Tensor | None:
    """A teacher's logits over the columns that take part."""
    return None if source is None else loss.columns(source.logits_NV.shape[-1]).select(source.logits_NV)


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


def _route_counts(item: Routed) -> dict[str, Tensor]:
    own_N = item.trained_N & ~item.dream_N
    counts = {f"route.{kind.name.lower()}": (own_N & (item.routing.route_N == kind)).sum() for kind in Route}
    return counts | {"route.dream": (item.trained_N & item.dream_N).sum()}
