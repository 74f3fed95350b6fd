"""A step that does not fit into a GPU is tried again with smaller micro-batches, and the run remembers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ladder.data.batches import Batches, Collation
from ladder.data.examples import Example
from ladder.errors import GpuOutOfMemory, OutOfMemory, out_of_memory
from ladder.run.recovery import divided, dividing, recovering
from tests.evolve.test_deaths import FakeRun, FakeWork

ROWS = [Example((1, 5 + row, 6, 2), (True,) * 3, gold=True) for row in range(12)]


def batches(batch_size: int = 8, accumulation: int = 2, ranks: int = 1) -> Batches:
    return Batches({"new": ROWS}, {"new": 1.0}, batch_size, accumulation, 0, Collation(0, 8), ranks=ranks)


def training(run: Any, fits: int, tried: list[int], error: Callable[[], Exception], **sizes: int) -> None:
    """One try at a training on a GPU that has room for so many rows at once."""
    found = divided(batches(**sizes), run)
    with dividing(found, run):
        tried.append(found.accumulation)
        assert len(tried) < 9, "it is divided by nothing"
        if max(micro.input_ids_BT.shape[0] for micro in found(0)) > fits:
            raise error()


def full() -> Exception:
    return out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"))


def test_micro_batches_are_divided_until_they_fit() -> None:
    run, work, tried = FakeRun(4), FakeWork(), list[int]()
    recovering(lambda: training(run, 1, tried, full), run, work)  # type: ignore[arg-type]
    assert tried == [2, 4, 8] and run.kept == {"divided": 4}
    assert len(work.said) == 2
    assert "CUDA out of memory" in work.said[0]
    assert "4 micro-batches a step instead of 2; on from step 4" in work.said[0]


def test_a_resumed_run_keeps_them() -> None:
    run, tried = FakeRun(4), list[int]()
    run.note(divided=2)
    training(run, 2, tried, full)
    assert tried == [4]
    whole, parts = batches()(0), divided(batches(), run)(0)  # type: ignore[arg-type]
    assert sorted(text for one in whole for text in one.digests) == sorted(
        text for one in parts for text in one.digests
    )


def test_a_row_cannot_be_divided() -> None:
    run, work, tried = FakeRun(0), FakeWork(), list[int]()
    with pytest.raises(GpuOutOfMemory, match="CUDA out of memory"):
        recovering(lambda: training(run, 0, tried, full), run, work)  # type: ignore[arg-type]
    assert tried == [2, 4, 8] and run.kept == {"divided": 4}


def test_each_rank_keeps_a_row() -> None:
    """Nothing is noted that no later start could carry out."""
    run, tried = FakeRun(0), list[int]()
    with pytest.raises(GpuOutOfMemory, match="CUDA out of memory"):
        recovering(lambda: training(run, 0, tried, full, batch_size=8, ranks=2), run, FakeWork())  # type: ignore[arg-type]
    assert tried == [2, 4] and run.kept == {"divided": 2}


def test_the_memory_of_a_cpu_is_not_saved_that_way() -> None:
    """Whoever else needs it is done some time; another child would be the price."""
    run, work, tried = FakeRun(0), FakeWork(), list[int]()

    def refused() -> Exception:
        return out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))

    with pytest.raises(OutOfMemory, match="can't allocate") as caught:
        recovering(lambda: training(run, 1, tried, refused), run, work)  # type: ignore[arg-type]
    assert type(caught.value) is OutOfMemory and tried == [2] and run.kept == {}
