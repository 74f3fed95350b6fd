"""Actors that are killed while they work: the same call goes on with new ones, and the child is the same."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from ladder.actors.session import SIGN_OF_LIFE
from ladder.errors import ActorDied
from ladder.run.recovery import DEATHS, recovering
from tests.tally import Tally

TAUGHT = "teacher_student_distillation"
STEPS = 24
KINDS = {"student": "ray::StudentActor", "teacher": "ray::TeacherActor", "evaluator": "ray::EvaluatorActor"}


def kill(kind: str) -> None:
    """SIGKILL one actor of this test's own Ray."""
    here = psutil.Process().children(recursive=True)
    found = [process.pid for process in here if process.name().startswith(KINDS[kind][:15]) and _is(process, kind)]
    assert found, f"no {kind} runs"
    os.kill(found[-1], signal.SIGKILL)


def _is(process: psutil.Process, kind: str) -> bool:
    return " ".join(process.cmdline()).startswith(KINDS[kind])


def child(family: Any, steps: int = STEPS) -> Any:
    training = {"steps": steps, "lr": 0.003, "batch_size": 9}
    runtime = {"checkpoint_every": 4, "threads": 1, "devices": {"student": "cpu", "teacher1": "cpu"}}
    return family.manifest(3, TAUGHT, parent=2, training_params=training, runtime=runtime)


def killed_at(monkeypatch: pytest.MonkeyPatch, deaths: dict[int, str]) -> list[str]:
    """Let actors die when so many step reports have come, counted over all tries; what was killed so far."""
    import ladder.run.train as training

    real, count, killed = training.stream, itertools.count(1), list[str]()

    def stream(*arguments: Any) -> Iterator[Any]:
        for report in real(*arguments):
            yield report
            if kind := deaths.get(next(count)):
                killed.append(kind)
                kill(kind)

    monkeypatch.setattr(training, "stream", stream)
    return killed


def examined_by_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first evaluator dies as soon as it has its seat."""
    import ladder.run.examine as examination

    real, first = examination.EvaluatorHandle.of, iter([True])

    def of(*arguments: Any) -> Any:
        handle = real(*arguments)
        if next(first, False):
            kill("evaluator")
        return handle

    monkeypatch.setattr(examination.EvaluatorHandle, "of", of)


def test_deaths_change_nothing(copy_of: Any, take_actors: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    whole, struck = copy_of("whole"), copy_of("struck")
    (before,) = whole.evolve(child(whole))
    take_actors()
    killed = killed_at(monkeypatch, {6: "student", 15: "teacher"})
    examined_by_a_dead_one(monkeypatch)
    (after,) = struck.evolve(child(struck))
    assert killed == ["student", "teacher"]
    assert (after.verdict, before.verdict) == ("PROMOTED", "PROMOTED"), after.detail
    first, second = whole.registry.head("Toy"), struck.registry.head("Toy")
    tally("T6, SIGKILL of actors in one run", actors_killed=3, the_same_digest=second.digest == first.digest)
    assert second.digest == first.digest
    assert [known.ref for known in struck.registry.generations("Toy")].count("Toy-G003") == 1
    assert logged(struck) == logged(whole) == list(range(STEPS))


def logged(family: Any) -> list[int]:
    """Steps whose loss stands in the child's MLflow run, as often as it does."""
    return [step for step, _ in family.registry.step_metrics(family.registry.head("Toy").run_id, "los")["s"]]


class FakeRun:
    """A run of which only the checkpoints and the notes matter."""

    def __init__(self, *reached: int) -> None:
        self.left, self.kept = list(reached), dict[str, Any]()

    def reached(self) -> int:
        return self.left[0]

    def notes(self) -> dict[str, Any]:
        return self.kept

    def note(self, **values: Any) -> None:
        self.kept |= values


class FakeWork:
    """Buries one student each time, and hears what is said."""

    def __init__(self) -> None:
        self.session, self.console, self.said = self, self, list[str]()

    def bury(self) -> list[str]:
        return ["student"]

    def say(self, text: str) -> None:
        self.said.append(text)


def test_deaths_without_progress_end_a_run() -> None:
    run, work = FakeRun(0), FakeWork()

    def dies() -> None:
        raise ActorDied("an actor died: out of memory")

    with pytest.raises(ActorDied, match=f"out of memory; {DEATHS + 1} times in a row .*memory"):
        recovering(dies, run, work)  # type: ignore[arg-type]
    assert len(work.said) == DEATHS and run.kept["deaths"] == DEATHS + 1
    assert "student to be started again, on from step 0" in work.said[0]


def test_deaths_with_progress_between_them_do_not() -> None:
    run, work, left = FakeRun(*range(3 * DEATHS)), FakeWork(), iter(range(3 * DEATHS - 1))

    def dies() -> None:
        if next(left, None) is not None:
            run.left.pop(0)
            raise ActorDied("an actor died")

    recovering(dies, run, work)  # type: ignore[arg-type]
    assert run.kept["deaths"] == 3 * DEATHS - 1


@pytest.mark.long
@pytest.mark.usefixtures("own_actors")
def test_an_actor_that_hangs_is_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    import ladder.actors.session as session
    from ladder.manifest import ROLES, Runtime

    assert SIGN_OF_LIFE >= 10

    class Idle:
        """An actor that is there at once: it imports nothing."""

    monkeypatch.setattr(session, "SIGN_OF_LIFE", 2.0)
    monkeypatch.setattr(session, "_KINDS", dict.fromkeys(session._KINDS, Idle))
    with session.Session() as opened:
        placement, roles = opened.placement(Runtime(), ROLES), ("evaluator", "teacher1")
        alive, stuck = opened.start(placement, roles).values()
        reference = stuck.__ray_call__.remote(lambda self: __import__("time").sleep(600))
        with pytest.raises(ActorDied, match="did not answer within 1 s"):
            session.fetch(reference, timeout=1)
        assert opened.bury() == ["teacher1"]
        again = opened.start(placement, roles)
        assert again["evaluator"] is alive and again["teacher1"] is not stuck
