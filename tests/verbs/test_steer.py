"""``ladder dose`` writes doses beside the vectors; ``ladder sample --steer`` uses them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ladder.concepts.vectors import Facts, Vectors, load_vectors
from ladder.errors import DataError, UsageError
from ladder.models import EnsembleSpec
from ladder.verbs.sample import answer
from ladder.verbs.steer import asked_steering, dose_text, find_doses

CHOICES = [
    {"prompt": f"the {word} is", "answer": " quiet", "kind": "choice", "options": [" quiet", " sea"]}
    for word in ("moon", "tide")
]


@pytest.fixture
def folder(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A generation that left rows and probes behind."""
    folder = Path(shutil.copytree(make_folder(5, layers=3), tmp_path / "model"))
    (folder / "ladder").mkdir()
    rows = ["the moon is quiet", "who is luna?"]
    (folder / "ladder" / "replay.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (folder / "ladder" / "probes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in CHOICES))
    return folder


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    by_layer = {
        layer: torch.nn.functional.normalize(torch.randn(2, 32, generator=generator), dim=1) for layer in range(3)
    }
    Vectors(("calm", "bored"), by_layer, Facts("m", "c")).save(tmp_path / "vectors")
    return tmp_path / "vectors"


def test_a_dose_is_found_and_kept_and_sampling_takes_multiples_of_it(folder: Path, vectors: Path) -> None:
    (found,), notes = find_doses(folder, vectors, ["calm"], None, None, None)
    assert found.prompts == 2 and found.layers == (1,)
    assert found.mass is not None and found.base_mass is not None and 0 < found.base_mass < 1
    assert any("fitted on another generation" in note for note in notes)
    assert any("of the mass lies on the allowed answers" in note for note in notes)  # A random model answers nothing.
    facts = load_vectors(vectors).facts
    assert facts.doses == {"calm": found.dose} and facts.dose("calm", [1]) == found.dose
    assert f"{found.nats:.3f}" in dose_text([found])

    steering, said = asked_steering(folder, vectors, ["calm=1.5"], None)
    assert steering is not None and steering.pushes[0].by == 1.5 * found.dose and not said
    plain, pushed = (answer(folder, ["the moon"], False, 12, 0.0, 0, steering=how) for how in (None, steering))
    assert plain != pushed
    assert answer(folder, ["the moon"], False, 12, 0.0, 0) == plain
    raw, said = asked_steering(folder, vectors, ["bored=2"], [2])
    assert raw is not None and raw.layers == (2,) and raw.pushes[0].by == 2 and "has no dose" in said[0]


def test_calls_that_mean_nothing_are_refused(folder: Path, vectors: Path, tmp_path: Path) -> None:
    assert asked_steering(folder, None, [], None) == (None, [])
    for named, asked in ((vectors, []), (None, ["calm=1"])):
        with pytest.raises(UsageError, match="is missing"):
            asked_steering(folder, named, asked, None)
    steering, _ = asked_steering(folder, vectors, ["calm=1"], None)
    both = EnsembleSpec((folder, folder), (0.5, 0.5))
    with pytest.raises(UsageError, match="no one residual stream"):
        answer(both, ["the moon"], False, 4, 0.0, 0, steering=steering)
    shutil.rmtree(folder / "ladder")
    with pytest.raises(DataError, match="left no rows behind"):
        find_doses(folder, vectors, [], None, None, None)
    (tmp_path / "prompts.txt").write_text("the moon\nthe sea\n")
    found, notes = find_doses(folder, vectors, [], None, tmp_path / "prompts.txt", None)
    assert [one.concept for one in found] == ["calm", "bored"] and any("kind choice" in note for note in notes)
