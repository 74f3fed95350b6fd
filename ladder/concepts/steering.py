"""Steering: a concept's direction added to a model's residual stream, or taken out of it.

With v of unit length and h what leaves a layer, additive steering makes h + c v of it, and ablation h - (h . v) v. Both
act on every token of a prompt and on every new one alike, whether or not earlier ones lie in a cache; tokens of padding
are changed too, which nobody sees, because attention never looks at them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.concepts.layers import changed, check_layers, decoder_layers
from ladder.concepts.vectors import Vectors, load_vectors
from ladder.errors import ModelError, UsageError

Change = Callable[[Tensor], Tensor]
"""From what leaves a layer, [B, T, D], to what goes on instead."""
BAND = (0.45, 0.55)
"""Where steering acts by default, as shares of the depth: a wider band compounds and collapses at half the dose."""
ABLATE = "ablate"
"""The amount of a concept that is taken out."""


def added(vector_D: Tensor, by: float) -> Change:
    """h + c v, in the dtype and on the device of h."""
    shift_D = by * vector_D
    return lambda hidden_BTD: hidden_BTD + shift_D.to(hidden_BTD)


def ablated(vector_D: Tensor) -> Change:
    """h - (h . v) v: nothing of the direction is left. Reckoned in float32 at least, and rounded once."""

    def change(hidden_BTD: Tensor) -> Tensor:
        exact_BTD = hidden_BTD.to(torch.promote_types(hidden_BTD.dtype, torch.float32))
        unit_D = torch.nn.functional.normalize(vector_D.to(exact_BTD), dim=0)
        return (exact_BTD - (exact_BTD @ unit_D).unsqueeze(-1) * unit_D).to(hidden_BTD.dtype)

    return change


def middle_layers(among: Sequence[int], count: int) -> tuple[int, ...]:
    """Those of some layers behind which 45 to 55% of a model's depth lie, or the one nearest to the half.

    Args:
        among: numbers of layers.
        count: layers of the model; behind layer i lie (i + 1) / count of it.
    """
    inside = tuple(layer for layer in sorted(among) if BAND[0] <= (layer + 1) / count <= BAND[1])
    return inside or (min(sorted(among), key=lambda layer: abs((layer + 1) / count - 0.5)),)


@dataclass(frozen=True)
class Push:
    """One concept and how far; picklable.

    Args:
        concept: its name in the vectors.
        by: c, what the vector of unit length is multiplied with; None takes the concept out.
    """

    concept: str
    by: float | None


@dataclass(frozen=True)
class Steering:
    """How a model is steered; picklable.

    Args:
        vectors: their folder.
        pushes: one or more, which add up.
        layers: behind which the residual is changed.
    """

    vectors: Path
    pushes: tuple[Push, ...]
    layers: tuple[int, ...]

    def digest(self) -> str:
        """SHA-256 of all that changes what a steered model says: the vectors' numbers, the layers and the amounts."""
        loaded, told = load_vectors(self.vectors), hashlib.sha256()
        for push in self.pushes:
            told.update(json.dumps([push.concept, push.by, self.layers]).encode())
            for layer in self.layers:
                told.update(_at(loaded, push.concept, layer).numpy().tobytes())
        return told.hexdigest()

    @contextmanager
    def on(self, model: PreTrainedModel) -> Iterator[None]:
        """While inside, the model is steered; afterwards, also after an error, it is what it was."""
        with steered(model, load_vectors(self.vectors), self.pushes, self.layers):
            yield


@contextmanager
def steered(
    model: PreTrainedModel, vectors: Vectors, pushes: Sequence[Push], layers: Sequence[int], after: int = 0
) -> Iterator[None]:
    """While inside, the model is steered; afterwards, also after an error, it is what it was.

    Args:
        after: columns at the front of a text that are left as they are, counted through a cache.

    Raises:
        UsageError: the model or the vectors do not have such a layer, or an amount is not finite.
        ModelError: the vectors have another width; or, when the model is run, what leaves a layer is not finite.
        DataError: there is no such concept.
    """
    vectors.check_width(model.config.get_text_config().hidden_size, type(model).__name__)
    check_layers(layers, len(decoder_layers(model)), "layers")
    changes = {
        layer: _checked([_change(vectors, push, layer) for push in pushes], layer, type(model).__name__)
        for layer in layers
    }
    columns = _Columns(after)
    watched = model.get_decoder().register_forward_pre_hook(columns, with_kwargs=True)
    try:
        with changed(model, {layer: columns.behind(change) for layer, change in changes.items()}):
            yield
    finally:
        watched.remove()


def _change(vectors: Vectors, push: Push, layer: int) -> Change:
    vector_D = _at(vectors, push.concept, layer)
    if push.by is None:
        return ablated(vector_D)
    if not isfinite(push.by):
        raise UsageError(f"{push.concept} by {push.by}", where="--steer", remedy="write a finite number")
    return added(vector_D, push.by)


def _at(vectors: Vectors, concept: str, layer: int) -> Tensor:
    """The vector [D] of a concept behind a layer.

    Raises:
        UsageError: there is none for that layer.
    """
    by_layer = vectors.of(concept)
    if layer not in by_layer:
        known = ", ".join(map(str, sorted(by_layer)))
        raise UsageError(f"no vectors for layer {layer}", where="layers", remedy=f"one of {known}, or fit them again")
    return by_layer[layer]


def _checked(changes: Sequence[Change], layer: int, model: str) -> Change:
    """All of them in their order, and a result that is finite."""

    def change(hidden_BTD: Tensor) -> Tensor:
        for one in changes:
            hidden_BTD = one(hidden_BTD)
        if not torch.isfinite(hidden_BTD).all():
            remedy = "steer by less, or see whether this generation is whole: ladder verify"
            raise ModelError(f"what leaves layer {layer} while it is steered is not finite", where=model, remedy=remedy)
        return hidden_BTD

    return change


class _Columns:
    """Knows which column of a text each forward begins with, and leaves the first ones as they are."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def __call__(self, _module: object, inputs: tuple[object, ...], told: dict[str, object]) -> None:
        cache = told.get("past_key_values")
        self.seen = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0

    def behind(self, change: Change) -> Change:
        """The change, of the columns from ``after`` on."""

        def late(hidden_BTD: Tensor) -> Tensor:
            kept = min(max(0, self.after - self.seen), hidden_BTD.shape[1])
            if not kept:
                return change(hidden_BTD)
            return torch.cat([hidden_BTD[:, :kept], change(hidden_BTD[:, kept:])], 1)

        return late


def asked_pushes(asked: Sequence[str]) -> dict[str, float | None]:
    """What ``CONCEPT=AMOUNT`` asks for, as multiples of a dose; None for ``CONCEPT=ablate``.

    Raises:
        UsageError: a text does not say that, or names a concept twice.
    """
    found = dict[str, float | None]()
    for text in asked:
        concept, _, amount = text.rpartition("=")
        try:
            by = None if amount == ABLATE else float(amount)
        except ValueError:
            by = float("nan")
        if not concept or concept in found or (by is not None and not isfinite(by)):
            remedy = "write --steer CONCEPT=0.8, a multiple of its dose, or CONCEPT=ablate, each concept once"
            raise UsageError(f"found {text!r}, expected CONCEPT=AMOUNT", where="--steer", remedy=remedy)
        found[concept] = by
    return found


def dosed_steering(
    folder: Path, asked: Mapping[str, float | None], count: int, layers: Sequence[int] | None = None
) -> tuple[Steering, list[str]]:
    """The steering of a model with ``count`` layers, and what a person should know of it.

    An amount is a multiple of the concept's iso-KL dose where one is stored that was measured behind these layers, and
    of the unit vector elsewhere.

    Args:
        layers: behind which; those of the vectors in the middle of the depth when left out.
    """
    vectors = load_vectors(folder)
    where = tuple(sorted(layers)) if layers else middle_layers([*vectors.by_layer], count)
    pushes, notes = [], []
    for concept, amount in asked.items():
        _ = vectors.of(concept)
        dose = vectors.facts.dose(concept, where)
        if amount is not None and dose is None:
            notes.append(
                f"{concept} has no dose behind layers {list(where)}, so {amount:g} is what its unit vector is "
                "multiplied with; ladder dose finds one"
            )
        pushes.append(Push(concept, None if amount is None else amount * (1.0 if dose is None else dose)))
    return Steering(folder, tuple(pushes), where), notes
