"""Two checkpoints are kept, the newest is found, and one that was cut off is never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ladder.errors import RunError
from ladder.train import checkpoint as module
from ladder.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint


def make(step: int) -> Checkpoint:
    tensors = {"model:a": torch.full((2,), float(step)), "random:cpu": torch.arange(3, dtype=torch.uint8)}
    return Checkpoint(step, tensors, {"ticks": step - 1})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "absent") is None


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(7))
    found = latest_checkpoint(tmp_path)
    assert found is not None and (found.step, found.state) == (7, {"ticks": 6})
    assert found.tensors.keys() == {"model:a", "random:cpu"}
    assert found.tensors["model:a"].tolist() == [7.0, 7.0] and found.tensors["random:cpu"].dtype == torch.uint8


def test_the_newest_two_are_kept_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 100, 1000):
        save_checkpoint(tmp_path, make(step))
    assert names(tmp_path) == ["step-00000100", "step-00001000"]
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 1000


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(3))
    save_checkpoint(tmp_path, Checkpoint(3, {"model:a": torch.ones(1)}, {"ticks": 9}))
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.state == {"ticks": 9} and names(tmp_path) == ["step-00000003"]


def test_a_save_that_fails_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step))

    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_file", fail)
    for step in (2, 3):
        with pytest.raises(RunError, match="cannot be written: disk full"):
            save_checkpoint(tmp_path, make(step))
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 2 and found.tensors["model:a"].tolist() == [2.0, 2.0]
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_what_a_killed_process_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    (tmp_path / ".step-00000002.4711.tmp").mkdir()
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 1


def test_any_layout_in_memory_is_saved(tmp_path: Path) -> None:
    value = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
    save_checkpoint(tmp_path, Checkpoint(1, {"model:a": value, "model:b": torch.tensor(3.0)}, {}))
    found = latest_checkpoint(tmp_path)
    assert found is not None and torch.equal(found.tensors["model:a"], value) and found.tensors["model:b"].item() == 3
