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
    "small": Size(_shape(3, 128, 4), genesis_steps=400, steps=400, rows=48, lr=2e-3),
    "medium": Size(_shape(4, 192, 6), genesis_steps=400, steps=400, rows=48, lr=2e-3),
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
        third: whether the generation before that one teaches as well, where there is one.
        stretch: steps of this method for each step of the others, to compare at equal time.
        tail: steps that follow, of dreams and replay alone.
    """

    says: str
    training: str = DISTILLATION
    params: Section = field(default_factory=dict)
    stabilizers: Section = field(default_factory=dict)
    student: Section = field(default_factory=dict)
    grandparent: bool = True
    third: bool = False
    stretch: float = 1.0
    tail: int = 0


STRETCH = 1.8
"""Steps of plain training with labels for each step of the default, dreams and teachers included, at equal time."""


def shares(new: float, replay: float = 0.0, dreams: float = 0.0) -> dict[str, dict[str, float]]:
    return {"shares": {"new": new, "replay": replay, "dreams": dreams}}


def _dreaming(**fields: Any) -> dict[str, Any]:
    return {"stabilizers": {"dreams": fields}}


MAIN: dict[str, Method] = {
    "fine-tuning": Method("labels of the new rows alone", TUNING, shares(1.0)),
    "replay": Method("fine-tuning, a tenth of each batch replayed", TUNING, shares(0.9, 0.1)),
    "replay-long": Method("the same for as long as the default takes", TUNING, shares(0.9, 0.1), stretch=STRETCH),
    "replay-half": Method("fine-tuning, half of each batch replayed", TUNING, shares(0.5, 0.5)),
    "dreams": Method("fine-tuning, 0.4 of each batch dreams, no teachers", TUNING, shares(0.6, dreams=0.4)),
    "one-teacher": Method(
        "learning without forgetting: labels, and one teacher's word on the new rows",
        params={"recipe": "logit_blending_kd", "alpha": 0.5, "beta": 0.5, "confidence_threshold": 0.0, **shares(1.0)},
        grandparent=False,
    ),
    "seed": Method(
        "the first sketch's routing as written, a tenth replayed",
        params={"recipe": "logit_blending_kd", **shares(0.9, 0.1)},
    ),
    "surprise": Method("surprise routing, a tenth replayed, no dreams", params=shares(0.9, 0.1)),
    "default": Method("surprise routing, dreams and replay, as a manifest gets that names nothing"),
    "default-one": Method("the default without the grandparent", grandparent=False),
    "both-dream": Method("the default, dreams of both teachers", **_dreaming(teacher="both")),
    "nothing-stored": Method(
        "surprise routing and dreams from the start token, no replay", params=shares(0.6, dreams=0.4)
    ),
    "lora": Method("the default with LoRA", student={"adapter": {"r": 16}}),
}
"""What people would choose between."""

ABLATIONS: dict[str, Method] = {
    "entropy": Method("surprised by more than the entropy and 1 nat", params={"surprise": "entropy"}),
    "entropy-0": Method("by more than the entropy", params={"surprise": "entropy", "surprise_margin": 0.0}),
    "tau-0.25": Method("tau 0.25 (default 0.5)", params={"surprise_tau": 0.25}),
    "tau-0.75": Method("tau 0.75", params={"surprise_tau": 0.75}),
    "T-1": Method("T 1 (default 2)", params={"temperature": 1.0}),
    "T-4": Method("T 4", params={"temperature": 4.0}),
    "alpha-0": Method("alpha 0, beta 1 (default 0.1 and 0.9)", params={"alpha": 0.0, "beta": 1.0}),
    "alpha-0.5": Method("alpha 0.5, beta 0.5", params={"alpha": 0.5, "beta": 0.5}),
    "dreams-0.2": Method("0.2 of each batch dreams, 0.7 new (default 0.3 and 0.6)", params=shares(0.7, 0.1, 0.2)),
    "dreams-0.4": Method("0.4 dreams, 0.5 new", params=shares(0.5, 0.1, 0.4)),
    "dreams-0.6": Method("0.6 dreams, 0.3 new", params=shares(0.3, 0.1, 0.6)),
    "replay-0.3": Method("0.3 of each batch replayed (default 0.1), 0.4 new", params=shares(0.4, 0.3, 0.3)),
    "600-dreams": Method("600 dreams (default 2,400)", **_dreaming(count=600)),
    "start": Method("dreams from the start token (default: openings of rows)", **_dreaming(prompts="start")),
    "cold-dreams": Method("dreams at temperature 0.7 (default 1)", **_dreaming(temperature=0.7)),
    "hot-dreams": Method("dreams at temperature 1.3", **_dreaming(temperature=1.3)),
    "no-ema": Method("no EMA (elsewhere 0.98)", stabilizers={"ema": False}),
    "ema-0.9": Method("EMA 0.9", stabilizers={"ema_decay": 0.9}),
}
"""The default with one thing changed."""


def _rehearsing(shares: str, older: int, dreams: int | None = None, **fields: Any) -> dict[str, Any]:
    count = {"dreams": {"count": dreams}} if dreams else {}
    return {"stabilizers": {"rehearsal": {"shares": shares, "older_teachers": older}, **count}, **fields}


REHEARSALS: dict[str, Method] = {
    "many-dreams": Method("6,400 dreams (default 2,400), each read once", **_dreaming(count=6400)),
    "fading-shares": Method("what fades is rehearsed more often", **_rehearsing("fading", 0)),
    "fading-two": Method(
        "shares follow what fades, which up to two older generations dream of that know it", **_rehearsing("fading", 2)
    ),
    "fading-tail": Method(
        "fading-two, and 100 steps of dreams and replay alone at the end", tail=100, **_rehearsing("fading", 2)
    ),
    "older-two": Method("what fades is dreamt by up to two older generations that know it", **_rehearsing("even", 2)),
    "older-alone": Method("older-two without the grandparent", **_rehearsing("even", 2, grandparent=False)),
    "older-dreams": Method(
        "older-alone, 0.4 of each batch dreams (3,200), 0.5 new",
        **_rehearsing("even", 2, 3200, grandparent=False, params=shares(0.5, 0.1, 0.4)),
    ),
    "older-half": Method(
        "older-alone, half of each batch dreams (4,000), 0.4 new",
        **_rehearsing("even", 2, 4000, grandparent=False, params=shares(0.4, 0.1, 0.5)),
    ),
    "older-half-long": Method(
        "older-half in 600 steps (default 400)",
        stretch=1.5,
        **_rehearsing("even", 2, 4000, grandparent=False, params=shares(0.4, 0.1, 0.5)),
    ),
    "half": Method(
        "half of each batch dreams (4,000), all of the parent, no grandparent",
        params=shares(0.4, 0.1, 0.5),
        grandparent=False,
        **_dreaming(count=4000),
    ),
}
"""The default with other rehearsal."""

FUSIONS: dict[str, Method] = {
    "mean": Method("the default, both teachers weigh the same", params={"fusion": "mean"}),
    "precision": Method("the default, weights by measured error", params={"fusion": "precision"}),
    "three": Method("the default with three generations", third=True),
    "three-mean": Method("three generations that weigh the same", params={"fusion": "mean"}, third=True),
    "three-precision": Method("three, weights by measured error", params={"fusion": "precision"}, third=True),
}
"""The default with other weights of its teachers, and with one more of them (without a throttle)."""

ON_POLICY: dict[str, Method] = {
    "on-policy": Method("student writes for replayed prompts in place of dreams", params={"recipe": "on_policy_kd"}),
    "on-policy-forward": Method(
        "the same by the forward divergence", params={"recipe": "on_policy_kd", "direction": "forward"}
    ),
    "on-policy-10": Method(
        "the same in ten rounds (default four)", params={"recipe": "on_policy_kd", "written": {"rounds": 10}}
    ),
    "on-policy-dreams": Method(
        "student writes, and its parent dreams", params={"recipe": "on_policy_kd"}, **_dreaming()
    ),
    "self-distillation": Method(
        "student writes for all prompts, parent reads new rows first", params={"recipe": "self_distillation"}
    ),
}
"""The student writes, and its parent scores."""

METHODS = MAIN | ABLATIONS | REHEARSALS | FUSIONS | ON_POLICY


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
    if method.third and generation > 2:
        third = {"name": "third", "kind": "generation", "generation": f"Climber-G{generation - 3:03}"}
        written |= {"teachers": {"others": [third]}}
        written["training_params"]["throttle"] = False
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
