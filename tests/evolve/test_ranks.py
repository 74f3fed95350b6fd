"""A student of two ranks in Ray's actors: it is promoted, it outlives the death of a rank, and one error ends both."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ladder.errors import ActorDied, ModelError
from tests.evolve.test_deaths import TAUGHT, logged
from tests.tally import Tally

STEPS = 24


def child(family: Any, ranks: int, sharding: str = "auto", **changes: Any) -> Any:
    runtime = {"checkpoint_every": 4, "threads": 1, "student": {"ranks": ranks, "sharding": sharding}}
    training = {"steps": STEPS, "lr": 0.003, "batch_size": 9}
    return family.manifest(3, TAUGHT, parent=2, training_params=training, runtime=runtime, **changes)


def promoted(family: Any, *arguments: Any) -> Any:
    """The child's generation."""
    (outcome,) = family.evolve(child(family, *arguments))
    assert outcome.verdict == "PROMOTED", outcome.detail
    assert logged(family) == list(range(STEPS))
    return family.registry.head("Toy")


def check_is_one_rank(alone: Any, several: Any) -> None:
    """Ranks in actors take the steps of one rank, up to rounding: the same gradients, so the same losses after them."""
    found = []
    for family in (alone, several):
        child = family.registry.head("Toy") if family is several else promoted(family, 1)
        logged = family.registry.step_metrics(child.run_id, "")
        found.append({name: [value for _, value in logged[name]] for name in ("loss", "grad_norm")})
    one, other = found
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2)
    assert other["grad_norm"][0] == pytest.approx(one["grad_norm"][0], rel=1e-6) and len(set(one["loss"])) == STEPS


@pytest.fixture
def struck(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, str]], list[str]]:
    """``struck({5: "student.1"})``: that role's process gets SIGKILL while the step after the fifth report is under
    way; which were killed so far."""
    import ladder.run.train as training
    from ladder.actors.session import fetch

    pids, killed = dict[str, int](), list[str]()
    begin, real = training.TrainingActors.start, training.stream

    def start(*arguments: Any) -> Any:
        crew = begin(*arguments)
        pids.update({role: fetch(actor.memory.remote()).pid for role, actor in crew.actors.items()})
        return crew

    def arm(deaths: dict[int, str], delay: Callable[[], float] = lambda: 0.0) -> list[str]:
        count = itertools.count(1)

        def stream(*arguments: Any) -> Iterator[Any]:
            for report in real(*arguments):
                yield report
                if role := deaths.get(next(count)):
                    time.sleep(delay())
                    killed.append(role)
                    os.kill(pids[role], signal.SIGKILL)

        monkeypatch.setattr(training, "stream", stream)
        return killed

    monkeypatch.setattr(training.TrainingActors, "start", start)
    return arm


@pytest.mark.usefixtures("own_actors")
def test_two_ranks_take_the_steps_of_one(copy_of: Any) -> None:
    whole = copy_of("whole")
    promoted(whole, 2, "fsdp")
    check_is_one_rank(copy_of("alone"), whole)


@pytest.mark.long
@pytest.mark.usefixtures("own_actors")
def test_a_rank_that_dies_changes_nothing(copy_of: Any, struck: Any, tally: Tally) -> None:
    sharding = "fsdp"
    whole, cut = copy_of("whole"), copy_of("cut")
    before = promoted(whole, 2, sharding)
    killed = struck({6: "student.1"})
    after = promoted(cut, 2, sharding)
    assert killed == ["student.1"]
    tally("SIGKILL of one of two ranks", ranks_killed=1, the_same_digest=before.digest == after.digest)
    assert before.digest == after.digest
    (notes,) = [run.read_text() for run in cut.home.glob("runs/Toy-G003/*/run.json")]
    assert '"deaths": 1' in notes and "student.1" in notes  # which memory is told of


@pytest.mark.long
@pytest.mark.usefixtures("own_actors")
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_rank_1_killed_at_ten_random_moments(copy_of: Any, struck: Any, sharding: str, tally: Tally) -> None:
    draw, equal = random.Random(1), 0
    whole = copy_of("whole")
    expected = promoted(whole, 2, sharding).digest
    check_is_one_rank(copy_of("alone"), whole)
    for trial in range(10):
        killed = struck({draw.randrange(1, STEPS - 1): "student.1"}, lambda: draw.random() * 0.2)
        before = len(killed)
        equal += promoted(copy_of(f"cut{trial}"), 2, sharding).digest == expected
        assert len(killed) == before + 1
    tally(f"SIGKILL of rank 1 at random moments, {sharding}", killed=10, the_same_digest=equal)
    assert equal == 10


class Group:
    """Ranks that can be ended."""

    ended = False

    def end(self) -> None:
        self.ended = True


def heard(*answers: Any, timeout: float = 60.0) -> tuple[Any, bool, float]:
    """What the driver hears of ranks that answer, raise, or wait for ever; whether it ended them; after how long."""
    import ray

    from ladder.actors.session import hear

    @ray.remote(num_cpus=0)
    class Rank:
        def answer(self, what: Any) -> Any:
            if isinstance(what, Exception):
                raise what
            time.sleep(what if isinstance(what, float) else 0.0)
            return what

    # Actors: a task that sleeps is ended by `ray.cancel(force=True)` alone, and Ray 2.60 ends the process that asks for
    # that, once in some dozen times ("Tried to complete task that was not pending").
    ranks = [Rank.remote() for _ in answers]
    ray.get([rank.answer.remote(None) for rank in ranks])
    group, references = Group(), [rank.answer.remote(what) for rank, what in zip(ranks, answers, strict=True)]
    began = time.monotonic()
    try:
        found: Any = hear(group, references, timeout)  # type: ignore[arg-type]
    except Exception as error:
        found = error
    for rank in ranks:
        ray.kill(rank)
    return found, group.ended, time.monotonic() - began


@pytest.mark.usefixtures("ray_session")
def test_the_first_failure_ends_the_waiting_for_all_ranks() -> None:
    wrong, lost = ModelError("weights do not fit"), ActorDied("rank 0 lost the others: Connection closed by peer")
    assert heard(1, 2)[:2] == ([1, 2], False)
    found, ended, seconds = heard(600.0, wrong)
    assert str(found) == str(wrong) and ended and seconds < 10
    # Who failed is told, and not who lost it.
    found, ended, _ = heard(lost, wrong)
    assert str(found) == str(wrong) and not ended
    found, ended, _ = heard(1, 600.0, timeout=1.0)
    assert isinstance(found, ActorDied) and "within 1 s" in str(found) and ended
