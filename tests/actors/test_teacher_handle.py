"""One teacher behind one handle, whatever the number of its replicas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ladder.actors.remote import StudentActor, TeacherHandle
from ladder.sampling.dreams import DreamBatch, Sampling
from ladder.train.spec import StepReport


def actor(name: str) -> Any:
    """Stands for an actor: a reference is who was asked for what."""

    def method(word: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: (name, word, *arguments))

    words = ("load_teacher", "signal", "dream", "digest", "cache_statistics")
    return SimpleNamespace(**{word: method(word) for word in words})


def block(seed: int) -> Any:
    return DreamBatch(2, None, [[1]], Sampling(1.0, 4), seed, ())  # type: ignore[arg-type]


def test_every_replica_is_asked_about_the_same_micro_batches() -> None:
    handle = TeacherHandle((actor("a"), actor("b")), 2)
    assert handle.signal("share") == (("a", "signal", 2, "share"), ("b", "signal", 2, "share"))
    assert handle.digest() == (("a", "digest", 2), ("b", "digest", 2))
    assert handle.cache_statistics() == (("a", "cache_statistics", 2), ("b", "cache_statistics", 2))
    assert handle.load(["first", "second"]) == (  # type: ignore[list-item]
        ("a", "load_teacher", "first"),
        ("b", "load_teacher", "second"),
    )


def test_blocks_of_dreams_go_round() -> None:
    blocks = [block(seed) for seed in range(5)]
    asked = TeacherHandle((actor("a"), actor("b")), 2).dream(blocks)
    assert asked == [(name, "dream", one) for name, one in zip("ababa", blocks, strict=True)]


def test_the_student_hears_the_replicas_of_a_teacher_as_one(monkeypatch: Any) -> None:
    """Whose part comes when is told by the numbers that go with them."""
    monkeypatch.setattr("ladder.actors.remote.wire.merged", lambda parts: "+".join(parts))
    heard: list[Any] = []
    student = StudentActor()
    done = StepReport(7, 1.0, wire_bytes=24, waited=0.5)
    student.trainer = SimpleNamespace(step=lambda *told: heard.append(told) or done)  # type: ignore[assignment]
    for _ in range(2):
        student.step(7, ["m0", "m1"], [1, 1, 2], ["a0", "a1"], ["b0", "b1"], ["c0", "c1"])  # type: ignore[arg-type,list-item]
    assert (student.received_bytes, student.waited_seconds) == (48, 1.0) and heard.pop() == heard[0]
    assert heard == [(7, ["m0", "m1"], {1: ["a0+b0", "a1+b1"], 2: ["c0", "c1"]})]
