"""Averaging the weights of generations is refused with the reason, whatever it is called."""

from __future__ import annotations

import pytest

from ladder.errors import ManifestError
from ladder.manifest import load_manifest
from ladder.manifest.explain import sections
from ladder.manifest.syntax import asks_to_average_weights

WORDS = [
    "weight_averaging",
    "average_weights",
    "average-weights",
    "averageWeights",
    "merge_weights",
    "weight_merge",
    "weight-merging",
    "model_soup",
    "model_soups",
    "slerp",
    "SLERP",
    "lerp",
    "ties",
    "TIES",
    "dare",
    "dare_ties",
    "task_arithmetic",
    "task-arithmetic",
    "interpolate_weights",
    "weight_interpolation",
    "parameter_averaging",
    "avg_params",
    "merge_models",
    "model_merging",
    "merge_checkpoints",
    "average_generations",
    "blend_weights",
    "mean_weights",
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("place", ["", "training_params.", "stabilizers.extra.deeper."])
def test_a_key_that_asks_for_it(write, change, place, word):
    path = write(change({place + word: {"ratio": 0.5}}))
    with pytest.raises(ManifestError, match="different basins") as caught:
        load_manifest(path)
    assert caught.value.where == f"{path}: {place}{word}"
    assert "blend predictions instead" in str(caught.value)
    assert "stabilizers.ema" in str(caught.value)
    assert "unknown key" not in str(caught.value)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("field", ["evolution_request.training_method", "training_params.method", "merge.strategy"])
def test_a_choice_that_asks_for_it(write, change, field, word):
    with pytest.raises(ManifestError, match="different basins"):
        load_manifest(write(change({field: word})))


@pytest.mark.parametrize("word", ["averaging", "merge", "Interpolation"])
def test_a_training_method_that_asks_for_it_in_short(write, change, word):
    with pytest.raises(ManifestError, match="different basins"):
        load_manifest(write(change({"evolution_request.training_method": word})))
    with pytest.raises(ManifestError, match="expected 'probabilities' or 'logits'"):
        load_manifest(write(change({"training_params.pooling": word})))


@pytest.mark.parametrize(
    "key", ["ema_weights", "weighted_average", "average_gradients", "merge_adapter", "mode", "parties"]
)
def test_other_unknown_keys_are_only_unknown(write, change, key):
    with pytest.raises(ManifestError, match="unknown key"):
        load_manifest(write(change({"stabilizers." + key: True})))


def test_free_text_may_speak_of_it(write, change):
    free = {"evolution_request.note": "not slerp", "laws.forbidden_text": ["weight_averaging"], "data.train": ["ties"]}
    assert load_manifest(write(change(free))).evolution_request.note == "not slerp"


def test_no_field_of_the_schema_asks_for_it():
    fields = [field for section in sections().values() for field in section.model_fields]
    assert len(fields) > 100
    assert not [field for field in fields if asks_to_average_weights(field, None)]
