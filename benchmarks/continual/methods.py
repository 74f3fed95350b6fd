"""The ways of going up the ladder that are compared, each as what its manifest says beside what all manifests say."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ladder.manifest.effective import DISTILLATION

TUNING = "supervised_fine_tuning"
PRETRAINING = "pretraining"
Section = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """A model's shape and how long each generation learns; the same for every method."""

    architecture: Section
    genesis_steps: int
    steps: int
    rows: int
    lr: float


def _shape(layers: int, hidden: int, heads: int) -> Section:
    return {"layers": layers, "hidden": hidden, "heads": heads, "max_positions": 128, "vocab_size": 2048}


SIZES = {
    "small": Size(_shape(3, 128, 4), genesis_steps=400, steps=300, rows=48, lr=2.5e-3),
    "medium": Size(_shape(4, 192, 6), genesis_steps=400, steps=300, rows=48, lr=2e-3),
    "tiny": Size(_shape(1, 32, 2), genesis_steps=4, steps=3, rows=8, lr=2e-3),
}
"""``tiny`` is for tests."""


@dataclass(frozen=True)
class Method:
    """One way.

    Args:
        says: in a few words.
        training: the ``training_method``.
        params: fields of ``training_params``.
        stabilizers: fields of ``stabilizers``.
        student: fields of ``student``.
        grandparent: whether the generation before the parent is named, where there is one.
        stretch: steps of this method for each step of the others, to compare at equal time.
    """

    says: str
    training: str = DISTILLATION
    params: Section = field(default_factory=dict)
    stabilizers: Section = field(default_factory=dict)
    student: Section = field(default_factory=dict)
    grandparent: bool = True
    stretch: float = 1.0


def _shares(new: float, replay: float = 0.0, dreams: float = 0.0) -> dict[str, dict[str, float]]:
    return {"shares": {"new": new, "replay": replay, "dreams": dreams}}


METHODS: dict[str, Method] = {
    "fine-tuning": Method("labels of the new rows alone", TUNING, _shares(1.0)),
    "replay": Method("fine-tuning, a tenth of each batch replayed", TUNING, _shares(0.9, 0.1)),
    "replay-half": Method("fine-tuning, half of each batch replayed", TUNING, _shares(0.5, 0.5)),
    "dreams": Method("fine-tuning, half of each batch dreams", TUNING, _shares(0.5, dreams=0.5)),
    "one-teacher": Method(
        "learning without forgetting: labels, and one teacher's word on the new rows",
        params={"method": "logit_blending_kd", "alpha": 0.5, "beta": 0.5, "confidence_threshold": 0.0, **_shares(1.0)},
        grandparent=False,
    ),
    "seed": Method(
        "the first sketch's routing as written, a tenth replayed",
        params={"method": "logit_blending_kd", **_shares(0.9, 0.1)},
    ),
    "surprise": Method("surprise routing, a tenth replayed, no dreams", params=_shares(0.9, 0.1)),
    "default": Method("surprise routing, dreams and replay, as a manifest gets that names nothing"),
    "default-one": Method("the default without the grandparent", grandparent=False),
    "default-entropy": Method("the default with surprise by entropy", params={"surprise": "entropy"}),
    "nothing-stored": Method("surprise routing and dreams, no replay", params=_shares(0.5, dreams=0.5)),
    "both-dream": Method("the default, dreams of both teachers", stabilizers={"dreams": {"teacher": "both"}}),
    "no-ema": Method("the default without EMA", stabilizers={"ema": False}),
    "lora": Method("the default with LoRA", student={"adapter": {"r": 16}}),
}


def genesis_document(size: Size, seed: int) -> dict[str, Any]:
    """The manifest of generation 0."""
    request = {"child_gen": "Climber-G000", "training_method": PRETRAINING}
    document = _common(request, size, seed, size.genesis_steps)
    document["student"] = {"architecture": dict(size.architecture)}
    return document


def document(method: Method, size: Size, seed: int, generation: int) -> dict[str, Any]:
    """The manifest of generation 1 and later."""
    request = {
        "child_gen": f"Climber-G{generation:03}",
        "parent_gen": f"Climber-G{generation - 1:03}",
        "training_method": method.training,
    }
    if method.grandparent and method.training == DISTILLATION and generation > 1:
        request["grandparent_gen"] = f"Climber-G{generation - 2:03}"
    written = _common(request, size, seed, round(size.steps * method.stretch))
    written["training_params"] |= deepcopy(dict(method.params))
    written["stabilizers"] |= deepcopy(dict(method.stabilizers))
    if "grandparent_gen" not in request:
        written["stabilizers"].get("dreams", {}).pop("teacher", None)
    if method.student:
        written["student"] = deepcopy(dict(method.student))
    return written


def _common(request: dict[str, str], size: Size, seed: int, steps: int) -> dict[str, Any]:
    return {
        "evolution_request": request,
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 64, "packing": True},
        "training_params": {"steps": steps, "lr": size.lr, "batch_size": size.rows},
        "stabilizers": {"ema": True, "ema_decay": 0.98},
        "gates": {"tone": {"reference": "none"}, "decoding": {"max_new_tokens": 12, "stop": ["."]}},
        "runtime": {"signal_cache": "memory"},
        "seeds": {"init": seed, "data": seed, "dreams": seed},
    }
