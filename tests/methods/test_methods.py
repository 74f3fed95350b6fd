"""Which class a manifest's word means, and what each method takes from the manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from ladder.distill import ROUTERS
from ladder.manifest import json_schema, schema
from ladder.manifest.effective import effective
from ladder.manifest.installed import OWN
from ladder.manifest.schema import Manifest
from ladder.methods import METHODS, method_of
from ladder.methods.distillation import Distillation, DistilledPretraining
from ladder.methods.fine_tuning import SupervisedFineTuning
from ladder.methods.pretraining import ContinualPretraining, Pretraining
from ladder.methods.steering_distillation import SteeringDistillation

DISTILLATION, GENESIS = "teacher_student_distillation", "distilled_pretraining"
STEERING = "steering_distillation"
STEERED = {"vectors": "v", "concepts": {"calm": 1.0}}


def manifest(method: str, *, grandparent: bool = True, **sections: Any) -> Manifest:
    request: dict[str, Any] = {"child_gen": "Luna-G002", "training_method": method}
    if method == GENESIS:
        sections = {"teachers": {"others": [{"name": "elder", "kind": "guest", "path": "elder"}]}, **sections}
    elif method != "pretraining":
        request["parent_gen"] = "Luna-G001"
        request |= {"grandparent_gen": "Luna-G000"} if grandparent and method != STEERING else {}
    if method == STEERING:
        sections = {"steering": STEERED, **sections}
    return effective(Manifest.model_validate({"evolution_request": request, **sections}))


def test_every_word_has_a_class() -> None:
    """The words are written down where the manifest's checks find them, and in the schema for editors."""
    assert list(METHODS) == list(OWN["ladder.methods"])
    assert json_schema()["$defs"]["EvolutionRequest"]["properties"]["training_method"]["enum"] == list(METHODS)
    assert {name: type(method_of(manifest(name))) for name in METHODS} == {
        "pretraining": Pretraining,
        "continual_pretraining": ContinualPretraining,
        "supervised_fine_tuning": SupervisedFineTuning,
        DISTILLATION: Distillation,
        GENESIS: DistilledPretraining,
        STEERING: SteeringDistillation,
    }


def test_facts_that_the_checks_of_a_manifest_read() -> None:
    found = {name: (one.starts_at_random, one.needs_parent, one.has_target) for name, one in METHODS.items()}
    assert found == {
        "pretraining": (True, False, False),
        "continual_pretraining": (False, False, False),
        "supervised_fine_tuning": (False, False, False),
        DISTILLATION: (False, True, True),
        GENESIS: (True, False, True),
        STEERING: (False, True, True),
    }


def test_what_is_trained_of_a_row_and_whether_it_needs_a_label() -> None:
    found = {name: (method.completion_only, method.needs_gold) for name, method in METHODS.items()}
    assert found == {
        "pretraining": (False, True),
        "continual_pretraining": (False, True),
        "supervised_fine_tuning": (True, True),
        DISTILLATION: (True, False),
        GENESIS: (False, False),
        STEERING: (True, False),
    }


@pytest.mark.parametrize("name", ["pretraining", "continual_pretraining", "supervised_fine_tuning"])
def test_methods_without_a_target_are_cross_entropy_on_gold(name: str) -> None:
    method = method_of(manifest(name, training_params={"alpha": 0.7, "beta": 0.2, "gamma": 0.3, "temperature": 3.0}))
    objective, routing = method.objective(), method.routing()
    assert (objective.alpha, objective.beta, objective.gamma, objective.temperature) == (0.0, 1.0, 0.0, 3.0)
    assert routing.routing == "gold" and method.teachers() == set()


WORDS: dict[str, Any] = {
    "alpha": 0.3,
    "beta": 0.6,
    "gamma": 0.2,
    "temperature": 3.0,
    "pooling": "logits",
    "direction": "jsd",
    "jsd_weight": 0.25,
    "ce_on": "fallback",
    "routing": "agreement",
    "confidence": "entropy",
    "js_threshold": 0.2,
    "confidence_threshold": 0.7,
    "agreement_confidence": 0.4,
    "gold_weight": 0.8,
    "surprise": "entropy",
    "surprise_tau": 0.4,
    "surprise_margin": 2.0,
    "granularity": "sequence",
    "fusion": "mean",
}


def test_distillation_takes_every_word_of_the_manifest() -> None:
    method = method_of(manifest(DISTILLATION, training_params=WORDS))
    assert asdict(method.objective()) | asdict(method.routing()) == WORDS | {"variance": None}


def test_defaults_are_the_same_on_both_sides() -> None:
    """What a manifest leaves out and what the mathematics assumes must not drift apart."""
    defaults, of_recipe = schema.TrainingParams(), {"routing": "surprise", "direction": "forward"}
    method = method_of(manifest(DISTILLATION))
    for name, value in (asdict(method.objective()) | asdict(method.routing())).items():
        assert value == (of_recipe[name] if name in of_recipe else getattr(defaults, name)), name
    assert method.routing().routing in ROUTERS


@pytest.mark.parametrize(
    ("recipe", "routing", "direction"),
    [
        ("surprise_kd", "surprise", "forward"),
        ("logit_blending_kd", "agreement", "forward"),
        ("on_policy_kd", "surprise", "reverse"),
        ("self_distillation", "surprise", "reverse"),
    ],
)
def test_recipes(recipe: str, routing: str, direction: str) -> None:
    method = method_of(manifest(DISTILLATION, training_params={"recipe": recipe}))
    assert method.routing().routing == routing and method.objective().direction == direction
    assert method.dreamers() == ({1} if recipe == "surprise_kd" else set())


def test_who_speaks() -> None:
    assert method_of(manifest(DISTILLATION)).teachers() == {1, 2}
    assert method_of(manifest(DISTILLATION, grandparent=False)).teachers() == {1}
    others = {"others": [{"name": name, "kind": "counts", "files": ["a"]} for name in ("a", "b")]}
    assert method_of(manifest(DISTILLATION, grandparent=False, teachers=others)).teachers() == {1, 3, 4}
    assert method_of(manifest(GENESIS)).teachers() == {3} and method_of(manifest(GENESIS)).dreamers() == set()


@pytest.mark.parametrize(("teacher", "dreamers"), [("teacher1", {1}), ("teacher2", {2}), ("both", {1, 2})])
@pytest.mark.parametrize("name", ["continual_pretraining", "supervised_fine_tuning", DISTILLATION])
def test_who_dreams(name: str, teacher: str, dreamers: set[int]) -> None:
    method = method_of(manifest(name, stabilizers={"dreams": {"teacher": teacher}}))
    assert method.dreamers() == dreamers
    assert method_of(manifest(name, stabilizers={"dreams": False})).dreamers() == set()


def test_a_genesis_has_nobody_to_dream() -> None:
    assert method_of(manifest("pretraining")).dreamers() == set()


def test_three_ways_to_learn_from_a_steered_parent() -> None:
    by_way = {
        way: method_of(manifest(STEERING, steering=STEERED | {"way": way}))
        for way in ("distribution", "completions", "prompt")
    }
    assert {way: one.teachers() for way, one in by_way.items()} == {
        "distribution": {2},
        "completions": {2},
        "prompt": {1},
    }
    assert {way: one.steered for way, one in by_way.items()} == {
        "distribution": {1},
        "completions": {1},
        "prompt": set(),
    }
    assert all(one.dreamers() == {1} and one.critic_is_parent for one in by_way.values())
    labels = by_way["completions"]
    assert labels.dreams_are_gold and not by_way["distribution"].dreams_are_gold
    assert labels.routing().routing == "gold" and labels.objective().beta == 1.0 and labels.objective().alpha == 0.0
    assert by_way["distribution"].routing().routing == "surprise"
    barrier = {"slack": 0.25, "direction": "forward", "aggregate": "mean", "strength": 0.7}
    told = method_of(manifest(STEERING, steering=STEERED | {"way": "completions", "barrier": barrier}))
    assert asdict(told.loss(10, (), compile=False).barrier) == barrier | {"reference": 2}
    nll = method_of(manifest(STEERING, steering=STEERED | {"way": "completions", "barrier": {"strength": 0.0}}))
    assert not hasattr(nll.loss(10, (), compile=False), "barrier")


def test_a_barrier_that_never_fired_is_said() -> None:
    (told,) = method_of(manifest(STEERING, steering=STEERED | {"way": "completions"})).remarks(
        {"kd": [(1, 0.1), (2, 0.4)], "regularizer": [(1, 0.0), (2, 0.0)]}
    )
    assert "at most 0.4 nats" in told and "tau is 0.5" in told and "steering.barrier.slack: 0.2" in told
    for way, paid in (("completions", 0.01), ("distribution", 0.0)):
        method = method_of(manifest(STEERING, steering=STEERED | {"way": way}))
        assert method.remarks({"kd": [(1, 0.6)], "regularizer": [(1, paid)]}) == []
