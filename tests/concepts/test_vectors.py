"""Vectors on disk: what is saved is read, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ladder.concepts.vectors import FACTS, TENSORS, Facts, Vectors, load_vectors
from ladder.errors import DataError, ModelError

FOUND = Vectors(("calm", "bored"), {2: torch.eye(2, 4), 5: torch.eye(2, 4).flip(0)}, Facts("m", "c", doses={"calm": 2}))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    FOUND.save(tmp_path / "v")
    again = load_vectors(tmp_path / "v")
    assert again.concepts == FOUND.concepts and again.facts == FOUND.facts
    assert all(torch.equal(again.by_layer[layer], FOUND.by_layer[layer]) for layer in FOUND.by_layer)
    assert torch.equal(again.of("bored")[5], torch.eye(2, 4)[0])
    (tmp_path / "v" / "quality.json").write_text("{}")
    FOUND.save(tmp_path / "v", {"more.txt": "more"})
    assert {path.name for path in (tmp_path / "v").iterdir()} == {FACTS, TENSORS, "quality.json", "more.txt"}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no concept 'joy'.*one of calm, bored"):
        FOUND.of("joy")
    with pytest.raises(ModelError, match="vectors of width 4, and this model's hidden states have 8"):
        FOUND.check_width(8, "Mine-G001")
    FOUND.save(tmp_path / "v")
    told = json.loads((tmp_path / "v" / FACTS).read_text())
    (tmp_path / "v" / FACTS).write_text(json.dumps(told | {"hidden_size": 5}))
    with pytest.raises(DataError, match=r"layer 2 holds \(2, 4\), expected finite \(2, 5\)"):
        load_vectors(tmp_path / "v")
    (tmp_path / "v" / TENSORS).write_bytes(b"torn")
    with pytest.raises(DataError, match="no concept vectors can be read"):
        load_vectors(tmp_path / "v")
