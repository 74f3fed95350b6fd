"""What SmolLM2 is taught by: ladder's own ways as what their manifests say beside the one that ``ladder init --from``
writes, and other people's, which are called through their packages."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.continual.methods import TUNING, Method, Section, shares
from benchmarks.sections import merged

QUESTIONS = "questions.jsonl"
"""What dreams answer."""


@dataclass(frozen=True)
class Way(Method):
    """One way.

    Args:
        peer: who trains it, of ``PEERS``; ladder where this is empty.
        rehearses: what dreams answer: questions of the kinds that ``ladder init`` writes and of every earlier
            lesson (``kinds``), or those of ``ladder init`` alone (``first``).
    """

    peer: str = ""
    rehearses: Literal["kinds", "first"] = "kinds"
    told: Section = field(default_factory=dict)
    """What the peer is told beside steps, rows and seed."""


@dataclass(frozen=True)
class Size:
    """A model, and how long each generation learns; the same for every way."""

    steps: int
    rows: int
    lr: float
    facts: int | None = None
    """Rows and probes of each lesson, where not all are wanted."""
    questions: int = 250
    """Of OpenBookQA."""
    windows: int = 32
    """Of CPython's documentation."""
    dreams: int | None = None
    """Written before a generation, where not as many as ``ladder init`` says."""


SIZES = {
    "smollm2": Size(steps=60, rows=8, lr=2e-3),
    "tiny": Size(steps=2, rows=4, lr=2e-3, facts=4, questions=4, windows=1, dreams=8),
}
"""``tiny`` is for tests."""
STRETCH = 2.0
"""Steps of plain training with labels for each step of the default, dreams and teachers included, at equal time: 60
steps of the default took 189 and 237 seconds of the processor (one teacher, two), 90 steps of replay 167."""

MAIN: dict[str, Way] = {
    "fine-tuning": Way("labels of the new rows alone", TUNING, shares(1.0)),
    "replay": Way("fine-tuning, a tenth of each batch replayed", TUNING, shares(0.9, 0.1)),
    "replay-long": Way("the same for as long as the default takes", TUNING, shares(0.9, 0.1), stretch=STRETCH),
    "one-teacher": Way(
        "learning without forgetting: labels, and one teacher's word on the new rows",
        params={"recipe": "logit_blending_kd", "alpha": 0.5, "beta": 0.5, "confidence_threshold": 0.0, **shares(1.0)},
        grandparent=False,
    ),
    "default": Way("surprise routing, dreams and replay, as `ladder init --from` writes it"),
}
"""What people would choose between."""

ABLATIONS: dict[str, Way] = {
    "no-dreams": Way("without dreams, their share replayed", params=shares(0.6, 0.4), stabilizers={"dreams": False}),
    "no-surprise": Way("without surprise: labels on all new and replayed tokens", TUNING),
    "no-ema": Way("without EMA", stabilizers={"ema": False}),
    "default-one": Way("without the grandparent", grandparent=False),
    "first-dreams": Way("dreams of the import's kinds alone", rehearses="first"),
    "fading": Way("rows of what fades are replayed more often", stabilizers={"rehearsal": {"shares": "fading"}}),
    "on-policy": Way(
        "the student writes for replayed prompts in place of dreams, and its parent scores",
        params={"recipe": "on_policy_kd"},
    ),
    "self-distillation": Way(
        "the student writes for all prompts, and its parent reads the row before it scores",
        params={"recipe": "self_distillation"},
    ),
}
"""The default without one thing, or with another word for one."""

PEERS_MAIN: dict[str, Way] = {
    "osf": Way(
        "PEFT's OSF as in its example for several tasks, 0.3 to 0.7 of the singular directions kept, lr 3e-4",
        TUNING,
        shares(1.0),
        peer="osf",
        told={"lr": 3e-4, "kept": (0.3, 0.4, 0.5, 0.6, 0.7)},
    ),
    "sdft": Way(
        "TRL's SDFT: the student writes, the parent with the answer before it judges; LoRA, lr 1e-3",
        TUNING,
        shares(1.0),
        peer="sdft",
        told={"lr": 1e-3, "tokens": 20},
    ),
    "gkd": Way(
        "TRL's GKD: half written by the student; the teacher is the parent fine-tuned on the new rows; LoRA, lr 1e-3",
        TUNING,
        shares(1.0),
        peer="gkd",
        told={"lr": 1e-3, "tokens": 20},
    ),
    "soup": Way(
        "Soup's fine-tuning with its replay of a tenth, its defaults but for LoRA r 16 and lr 0.002",
        TUNING,
        shares(0.9, 0.1),
        peer="soup",
        told={"lr": 2e-3, "replay": 0.1},
    ),
}
"""Other people's."""

FEW: dict[str, Way] = {
    "replay-few": Way(
        "replay where each generation leaves 10 of its 90 rows", TUNING, shares(0.9, 0.1), {"replay_size": 10}
    ),
    "default-few": Way("the default where each generation leaves 10 of its 90 rows", stabilizers={"replay_size": 10}),
}
"""What is kept where little may be stored."""

METHODS = MAIN | PEERS_MAIN | ABLATIONS | FEW


def document(
    way: Way, size: Size, seed: int, generation: int, written: Section, *, dreams_on_file: bool
) -> dict[str, Any]:
    """The manifest of a generation.

    Args:
        written: what ``ladder init --from`` wrote for the first child.
        dreams_on_file: whether there is a file of questions for dreams beside it.
    """
    request = {
        "child_gen": f"Real-G{generation:03}",
        "parent_gen": f"Real-G{generation - 1:03}",
        "training_method": way.training,
        "note": "",
    }
    if way.grandparent and way.training != TUNING and generation > 1:
        request["grandparent_gen"] = f"Real-G{generation - 2:03}"
    document = merged(dict(deepcopy(written)), _common(size, seed, round(size.steps * way.stretch)))
    # Nobody judges laws here, or counts minutes but the rows.
    document = {name: section for name, section in document.items() if name not in ("laws", "budget")}
    document["evolution_request"] = request
    if way.training == TUNING:
        document["training_params"].pop("surprise_tau", None)
    if size.dreams is not None:
        document["stabilizers"]["dreams"]["count"] = size.dreams
    if dreams_on_file:
        document["stabilizers"]["dreams"]["prompts"] = QUESTIONS
    document["training_params"] |= deepcopy(dict(way.params))
    for name, value in way.stabilizers.items():
        both = isinstance(value, dict) and isinstance(document["stabilizers"].get(name), dict)
        document["stabilizers"][name] = document["stabilizers"][name] | value if both else deepcopy(value)
    if not document["training_params"]["shares"].get("dreams"):
        document["stabilizers"]["dreams"] = False
    document["student"] = document.get("student", {}) | deepcopy(dict(way.student))
    return document


def _common(size: Size, seed: int, steps: int) -> dict[str, Any]:
    return {
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 128, "packing": True},
        "training_params": {"steps": steps, "lr": size.lr, "batch_size": size.rows},
        "gates": {"decoding": {"max_new_tokens": 20, "batch_size": 32}},
        "runtime": {"signal_cache": "memory"},
        "seeds": {"init": seed, "data": seed, "dreams": seed},
    }
