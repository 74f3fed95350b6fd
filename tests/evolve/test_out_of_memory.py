"""An actor asks for more memory than there is: said once, tried once, and the same command gives the same child."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ladder.actors.session import fetch
from ladder.run import train
from tests.evolve.test_deaths import child, logged
from tests.tally import Tally

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("own_actors")]


def greedy(actor: Any) -> None:
    """Ask torch, inside the actor, for more than any machine has."""
    torch.empty(2**50)


def full(actor: Any) -> None:
    """What torch raises, inside the actor, where a GPU has no room."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")


def test_it_is_said_and_the_run_goes_on_with_more(
    copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    whole, struck = copy_of("whole"), copy_of("struck")
    (before,) = whole.evolve(child(whole))
    real, tries = train.stream, []

    def stream(group: Any, *others: Any) -> Iterator[Any]:
        for report in real(group, *others):
            if report.step == 6:
                tries.append(report.step)
                fetch(group.ranks[0].__ray_call__.remote(greedy))
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(train, "stream", stream)
        (first,) = struck.evolve(child(struck))
    assert (first.verdict, first.exit_code, tries) == ("FAILED", 1, [6])
    assert "out of memory" in first.detail and "can't allocate memory" in first.detail
    assert "training_params.accumulation" in first.detail
    assert struck.registry.head("Toy").ref == "Toy-G002"
    (folder,) = struck.home.glob("runs/Toy-G003/*")
    assert list(folder.glob("checkpoints/step-00000004"))
    assert "deaths" not in json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (again,) = struck.evolve(child(struck))
    assert (before.verdict, again.verdict) == ("PROMOTED", "PROMOTED"), again.detail
    same = struck.registry.head("Toy").digest == whole.registry.head("Toy").digest
    tally("an actor without memory", tried=1, the_same_digest=same)
    assert same and logged(struck) == logged(whole)


def test_a_step_that_a_gpu_has_no_room_for_is_done_in_smaller_parts(
    copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    struck, real, parts = copy_of("struck"), train.stream, list[int]()

    def stream(group: Any, teachers: Any, batches: Any, *others: Any) -> Iterator[Any]:
        parts.append(batches.accumulation)
        for report in real(group, teachers, batches, *others):
            if report.step == 6 and batches.accumulation == 1:
                fetch(group.ranks[0].__ray_call__.remote(full))
            yield report

    monkeypatch.setattr(train, "stream", stream)
    (outcome,) = struck.evolve(child(struck))
    assert outcome.verdict == "PROMOTED", outcome.detail
    assert parts[0] == parts[1] == 1 and set(parts[2:]) == {2}, "the checkpoint of step 4 was the last one that fitted"
    (folder,) = struck.home.glob("runs/Toy-G003/*")
    notes = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert notes["divided"] == 2 and "deaths" not in notes
    tally("a step without room on a GPU", tried=1, gone_on=True)
    assert logged(struck) == list(range(24))
