"""Defaults that depend on other fields: recipe, routing, dreams, replay, architecture."""

from __future__ import annotations

import pytest

from ladder.manifest import load_manifest
from ladder.manifest.effective import contexts, effective, others, round_starts, teacher_field
from ladder.manifest.request import validated
from ladder.manifest.schema import Architecture, Dreams, Manifest

REQUEST = "evolution_request."
GENESIS = {REQUEST + "parent_gen": "<take this key out>", REQUEST + "grandparent_gen": "<take this key out>"}
PRETRAINING = {**GENESIS, REQUEST + "training_method": "pretraining"}
CONTINUAL = {REQUEST + "training_method": "continual_pretraining"}
FROM_FOLDER = {**GENESIS, REQUEST + "training_method": "supervised_fine_tuning", "student.model": "models/base"}
ON_POLICY = {"training_params.recipe": "on_policy_kd"}
BLENDING = {"training_params.recipe": "logit_blending_kd"}

DREAMS = Dreams(count=2400)
"""5 rows of 16 in each of 1,200 steps would be more."""

MEANT = [
    ({}, "surprise_kd", "surprise", DREAMS, True),
    ({"training_params.recipe": "surprise_kd"}, "surprise_kd", "surprise", DREAMS, True),
    (BLENDING, "logit_blending_kd", "agreement", False, True),
    ({**BLENDING, "training_params.routing": "surprise"}, "logit_blending_kd", "surprise", False, True),
    ({"training_params.routing": "agreement"}, "surprise_kd", "agreement", DREAMS, True),
    ({**BLENDING, "stabilizers.dreams": True}, "logit_blending_kd", "agreement", DREAMS, True),
    ({**BLENDING, "stabilizers.dreams": {"count": 9}}, "logit_blending_kd", "agreement", Dreams(count=9), True),
    ({"stabilizers.dreams": False}, "surprise_kd", "surprise", False, True),
    (ON_POLICY, "on_policy_kd", "surprise", False, True),
    ({**ON_POLICY, "stabilizers.dreams": True}, "on_policy_kd", "surprise", DREAMS, True),
    ({"training_params.recipe": "self_distillation"}, "self_distillation", "surprise", False, True),
    ({"training_params.shares": {"dreams": 0}}, "surprise_kd", "surprise", False, True),
    ({"training_params.shares": {"replay": 0}}, "surprise_kd", "surprise", DREAMS, False),
    (CONTINUAL, None, None, DREAMS, True),
    (PRETRAINING, None, None, False, True),
    (FROM_FOLDER, None, None, False, True),
]


@pytest.mark.parametrize(("changes", "recipe", "routing", "dreams", "replay"), MEANT)
def test_what_a_manifest_means(write, change, changes, recipe, routing, dreams, replay):
    manifest = effective(load_manifest(write(change(changes))))
    assert (manifest.training_params.recipe, manifest.training_params.routing) == (recipe, routing)
    assert manifest.stabilizers.dreams == dreams
    assert manifest.stabilizers.replay_buffer is replay


@pytest.mark.parametrize("changes", [row[0] for row in MEANT])
def test_the_effective_manifest_is_a_manifest_that_means_itself(write, change, changes):
    manifest = effective(load_manifest(write(change(changes))))
    document = manifest.model_dump(mode="json")
    again = validated(document, "again")
    assert effective(again).model_dump() == again.model_dump() == manifest.model_dump()


@pytest.mark.parametrize(
    ("params", "direction", "starts", "count"),
    [
        ({}, "forward", (), None),
        ({"direction": "reverse"}, "reverse", (), None),
        ({"recipe": "on_policy_kd"}, "reverse", (0, 300, 600, 900), 512),
        ({"recipe": "on_policy_kd", "direction": "forward"}, "forward", (0, 300, 600, 900), 512),
        ({"recipe": "self_distillation", "steps": 10, "batch_size": 12}, "reverse", (0, 2, 5, 7), 12),
        ({"recipe": "self_distillation", "steps": 2, "written": {"count": 5, "rounds": 2}}, "reverse", (0, 1), 5),
    ],
)
def test_a_student_that_writes(write, change, params, direction, starts, count):
    """4 rows of 12 in at most 3 steps a round; 6 of 16 in 300 are more than are written."""
    manifest = effective(load_manifest(write(change({"training_params": params}))))
    assert manifest.training_params.direction == direction and round_starts(manifest) == starts
    assert getattr(manifest.training_params.written, "count", None) == count


def test_pretraining_without_an_architecture_gets_the_default_one(write, change):
    assert effective(load_manifest(write(change(PRETRAINING)))).student.architecture == Architecture()
    small = {**PRETRAINING, "student.architecture": {"layers": 2}}
    assert effective(load_manifest(write(change(small)))).student.architecture == Architecture(layers=2)
    assert effective(load_manifest(write(change(FROM_FOLDER)))).student.architecture is None


def test_sections_are_immutable_once_read(write, change):
    manifest = load_manifest(write(change({})))
    with pytest.raises(ValueError, match="frozen"):
        manifest.training_params.lr = 1.0


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"steps": 10, "batch_size": 12}, 40),
        ({"steps": 10, "batch_size": 11}, 40),
        ({"steps": 7, "batch_size": 8, "shares": {"new": 3.0, "dreams": 1.0}}, 14),
        ({"steps": 600, "batch_size": 12}, 2400),
        ({"steps": 601, "batch_size": 12}, 2400),
    ],
)
def test_dreams_are_enough_to_read_each_once(write, change, params, count):
    manifest = effective(load_manifest(write(change({"training_params": params}))))
    assert manifest.stabilizers.dreams.count == count
    written = effective(load_manifest(write(change({"training_params": params, "stabilizers.dreams": {"count": 7}}))))
    assert written.stabilizers.dreams.count == 7


def test_further_teachers_have_numbers_and_may_read_more(change):
    listed = [{"name": "corpus", "kind": "counts", "files": ["a"]}, {"name": "e", "kind": "guest", "path": "e"}]
    listed[1]["context"] = "{text} "
    manifest = Manifest.model_validate(
        change({"teachers.others": listed, "teachers.teacher1": {"context": "{text}\n"}})
    )
    assert {number: one.name for number, one in others(manifest).items()} == {3: "corpus", 4: "e"}
    assert contexts(manifest) == {1: "{text}\n", 4: "{text} "}
    assert [teacher_field(number) for number in (1, 2, 3, 4)] == [
        "teachers.teacher1",
        "teachers.teacher2",
        "teachers.others.0",
        "teachers.others.1",
    ]
