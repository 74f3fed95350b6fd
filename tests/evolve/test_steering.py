"""Steering distillation from a manifest to HEAD: by the whole distribution, by completions, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.concepts.steering import Push, Steering
from ladder.concepts.vectors import Facts, Vectors
from ladder.errors import LadderError, ModelError
from ladder.models import load_model
from ladder.models.dial import Gates
from ladder.teachers.cache import CacheKey
from ladder.verbs.dial import dial_of
from tests.evolve.conftest import Toy

METHOD = "steering_distillation"
OPEN = {"max_perplexity": 1e9, "max_repetition": 1.0}


@pytest.fixture(scope="module")
def steered(ray_session: Any, empty_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A toy with a genesis and the directions of two concepts, one of which has a dose."""
    toy = Toy(tmp_path_factory.mktemp("steered"))
    toy.store = empty_home
    toy.manifest(0, "pretraining")
    toy.evolve()
    write_vectors(toy.folder / "vectors")
    return toy


def write_vectors(folder: Path, width: int = 32) -> None:
    generator = torch.Generator().manual_seed(0)
    by_layer = {0: torch.nn.functional.normalize(torch.randn(2, width, generator=generator), dim=1)}
    Vectors(("calm", "bored"), by_layer, Facts("m", "c", doses={"calm": 40.0}, dosed={"calm": [0]})).save(folder)


def child(toy: Any, index: int, parent: int = 0, request: Any = None, **steering: Any) -> Path:
    section = {"vectors": "vectors", "concepts": {"calm": 1.0}, "keep": OPEN} | steering
    return toy.manifest(
        index, METHOD, parent=parent, steering={k: v for k, v in section.items() if v}, request=request or {}
    )


def test_a_steered_parent_teaches_by_its_distribution(steered: Any) -> None:
    (outcome,) = steered.evolve(child(steered, 1))
    assert outcome.verdict == "PROMOTED", outcome.detail
    run = next((steered.home / "runs" / "Toy-G001").iterdir())
    dreams = [json.loads(line) for line in (run / "dreams.jsonl").read_text().splitlines()]
    assert len(dreams) == 16 and all(dream["teacher"] == 1 and dream["tail"] > 1 for dream in dreams)
    notes = json.loads((run / "run.json").read_text())
    assert set(notes["frozen"]) == {"1", "2"} and len({part for pair in notes["frozen"].values() for part in pair}) == 1


def test_a_barrier_that_is_never_reached_is_said(steered: Any) -> None:
    path = child(steered, 2, request={"branch": True}, way="completions", barrier={"slack": 100.0})
    (outcome,) = steered.evolve(path)
    assert outcome.verdict in ("PROMOTED", "PASSED"), outcome.detail
    notes = json.loads((next((steered.home / "runs" / "Toy-G002").iterdir()) / "run.json").read_text())
    assert any("the barrier never fired" in text and "tau is 100" in text for text in notes["warnings"])
    losses = steered.registry.step_metrics(notes["mlflow_run"], "loss/")
    assert len(losses["kd"]) == 6 and losses["kd"][-1][1] > 0 == max(value for _, value in losses["regularizer"])


def test_what_cannot_be_carried_out_is_refused_before_anything_is_trained(steered: Any) -> None:
    refused = [
        ({"concepts": {"bored": 1.0}}, "bored has no dose behind layers .0."),
        ({"concepts": {"joy": 1.0}}, "no concept 'joy'"),
        ({"concepts": {}}, "steering.concepts: is missing"),
        ({"way": "prompt"}, "found with way prompt"),
        ({"layers": [3]}, "layer"),
    ]
    for section, match in refused:
        path = child(steered, 3, request={"branch": True}, **section)
        if "concepts" in section and not section["concepts"]:
            body = json.loads(path.read_text())
            body["steering"]["concepts"] = {}
            path.write_text(json.dumps(body))
        assert re.search(match, refusal(steered, path))
    write_vectors(steered.folder / "vectors", width=16)
    path = child(steered, 3, request={"branch": True})
    assert "vectors of width 16" in refusal(steered, path)
    assert not list((steered.home / "runs").glob("Toy-G003/*/checkpoints"))


def refusal(toy: Any, path: Path) -> str:
    """Why an evolve did not carry a manifest out."""
    try:
        (outcome,) = toy.evolve(path)
    except LadderError as error:
        return str(error)
    assert outcome.verdict == "FAILED"
    return str(outcome.detail)


def test_the_cache_knows_who_is_steered_by_what(parent: Path, tmp_path: Path) -> None:
    write_vectors(tmp_path / "v")
    told = (parent, "hidden", "float32", None)
    steerings = [None, *(Steering(tmp_path / "v", (Push("calm", by),), (0,)) for by in (1.0, 2.0))]
    keys = [CacheKey.of(*told, steering) for steering in steerings]
    assert len({key.name for key in keys}) == 3
    assert keys[0] == CacheKey.of(*told)


def test_a_generation_with_an_adapter_is_dialled_between_its_base_and_itself(climbed: Any) -> None:
    registry = climbed.registry
    head = registry.head("Toy")  # An adapter on Toy-G001, which trained all weights.
    dial, (told,) = dial_of(registry, head)
    assert told == "the base is Toy-G001, the history nobody, and the newest Toy-G002"
    base, child = (load_model(registry.materialize(registry.find(ref))) for ref in ("Toy-G001", "Toy-G002"))
    ids_BT = torch.arange(3, 11).reshape(1, 8)
    with torch.no_grad():
        with dial.at(Gates(1.0, 0.0)) as model:
            assert torch.equal(model(ids_BT).logits, base(ids_BT).logits)
        with dial.at(Gates()) as model:
            assert torch.allclose(model(ids_BT).logits, child(ids_BT).logits, atol=1e-4)
            assert not torch.equal(model(ids_BT).logits, base(ids_BT).logits)
    with pytest.raises(ModelError, match="Toy-G001 is no adapter on its parent"):
        dial_of(registry, registry.find("Toy-G001"))
