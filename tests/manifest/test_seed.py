"""The manifest that the project started from loads word for word and means what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladder.errors import ManifestError
from ladder.manifest import load_manifest, read_request
from ladder.manifest.effective import effective
from ladder.manifest.schema import Shares

SEED = Path(__file__).with_name("seed.json")


def test_the_seed_loads_with_its_own_field_names():
    """But for one, which has another name today and is still read under its own."""
    manifest = load_manifest(SEED).model_dump(exclude_unset=True)
    manifest["training_params"]["method"] = manifest["training_params"].pop("recipe")
    assert manifest == json.loads(SEED.read_text())


def test_the_seed_means_its_own_routing_without_dreams():
    params = effective(load_manifest(SEED)).training_params
    assert (params.alpha, params.beta, params.gamma, params.temperature) == (0.1, 0.9, 0.0, 2.0)
    assert (params.recipe, params.routing, params.steps, params.lr) == ("logit_blending_kd", "agreement", 1200, 1.5e-5)
    assert effective(load_manifest(SEED)).stabilizers.dreams is False
    assert params.shares == Shares()


def test_carrying_the_seed_out_asks_for_data_and_for_the_teachers_it_names():
    with pytest.raises(ManifestError) as caught:
        read_request(SEED)
    data, teacher1, teacher2 = str(caught.value).splitlines()
    assert caught.value.where == f"{SEED}: data"
    assert 'add "data": {"train": ["data/train.jsonl"]' in data
    assert "also teachers.teacher1.path: 'models/Luna-G010-20251024-120000/' is no existing folder" in teacher1
    assert "also teachers.teacher2.path" in teacher2
