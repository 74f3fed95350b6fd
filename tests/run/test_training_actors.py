"""What the replicas of a teacher say of themselves, and their dreams, as one teacher's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ladder.actors.placement import Traffic
from ladder.actors.remote import Loaded
from ladder.errors import ModelError
from ladder.run import train
from ladder.run.train import TrainingActors, _check_alike, _digest
from ladder.sampling.dreams import DreamBatch, Sampling
from ladder.setup import Usage
from ladder.system.process import ProcessMemory
from ladder.teachers import CacheStatistics


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """References are the answers themselves."""
    monkeypatch.setattr(train, "fetch", lambda references: references)


def block(teacher: int, seed: int) -> DreamBatch:
    return DreamBatch(teacher, None, [[1]], Sampling(1.0, 4), seed, ())  # type: ignore[arg-type]


def test_blocks_come_back_in_the_order_in_which_they_were_asked_for() -> None:
    def teacher(number: int) -> Any:
        return SimpleNamespace(dream=lambda blocks: [f"{number}:{one.seed}" for one in blocks])

    crew = TrainingActors({}, {1: teacher(1), 2: teacher(2)}, None)  # type: ignore[arg-type]
    asked = [block(1, 10), block(2, 20), block(1, 11), block(2, 21)]
    assert crew.dream(asked) == ["1:10", "2:20", "1:11", "2:21"]
    assert crew.dream(asked[1:2]) == ["2:20"]


def test_what_caches_did_is_summed_over_all_replicas() -> None:
    def teacher(*counts: CacheStatistics) -> Any:
        return SimpleNamespace(cache_statistics=lambda: counts)

    one, two, three = CacheStatistics(1, 2, 30), CacheStatistics(10, 20, 300), CacheStatistics(100, 200, 3000)
    roles = ("student", "teacher1", "teacher1.1")
    actors = {
        role: SimpleNamespace(
            memory=SimpleNamespace(remote=lambda pid=pid: ProcessMemory("here", pid, 7 + pid)),
            traffic=SimpleNamespace(remote=lambda node: Traffic(node, sent=5)),
        )
        for pid, role in enumerate(roles)
    }
    nodes = dict.fromkeys(roles, "here")
    crew = TrainingActors(actors, {1: teacher(one, two), 2: teacher(three)}, None, nodes)  # type: ignore[arg-type]
    usage = crew.survey(Usage())
    assert (usage.hits, usage.misses, usage.cache_bytes) == (111, 222, 3330)
    assert usage.memory_bytes == {"student": 7, "teacher1": 8, "teacher1.1": 9}


def test_replicas_are_one_teacher_or_the_run_ends() -> None:
    same = [Loaded("a" * 64, "hidden"), Loaded("a" * 64, "hidden")]
    _check_alike({1: same, 2: same[:1]})
    for other in (Loaded("b" * 64, "hidden"), Loaded("a" * 64, "logits")):
        with pytest.raises(ModelError, match="the replicas of teacher 2 differ: aaaaaaaaaaaa sends hidden, "):
            _check_alike({1: same, 2: [same[0], other]})


def test_one_replica_that_moved_is_a_teacher_that_moved() -> None:
    assert _digest(["a", "a"]) == _digest(["a"]) == "a"
    assert _digest(["b", "a"]) == "a and b"
