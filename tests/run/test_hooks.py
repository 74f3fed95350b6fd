"""A training calls its hooks in their order, and its checkpoint stands between what is noted and what ends the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.errors import ActorDied, Interrupted, RunError
from ladder.registry.lineage import Ancestry
from ladder.run.hooks import Hook, Journal, Minutes, Stop, metrics_of, run_legs
from ladder.setup.context import Run, Usage
from ladder.train.receipts import Receipt
from ladder.train.spec import StepReport


class Told(Hook):
    """Writes down when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def after_step(self, report: StepReport) -> None:
        self.calls.append(f"{self.name} step {report.step}")

    def before_checkpoint(self, done: int) -> None:
        self.calls.append(f"{self.name} before {done}")

    def after_checkpoint(self, done: int) -> None:
        self.calls.append(f"{self.name} after {done}")


def leg(done: int) -> Iterator[StepReport]:
    """Up to two steps, of three."""
    return (StepReport(step, 1.0) for step in range(done, min(3, done + 2)))


def test_hooks_are_called_in_their_order_around_each_checkpoint() -> None:
    calls = list[str]()
    run_legs(leg, lambda: calls.append("checkpoint"), [Told("a", calls), Told("b", calls)], 0, 3)
    first = ["a step 0", "b step 0", "a step 1", "b step 1", "a before 2", "b before 2", "checkpoint"]
    second = ["a after 2", "b after 2", "a step 2", "b step 2", "a before 3", "b before 3", "checkpoint"]
    assert calls == [*first, *second, "a after 3", "b after 3"]


def test_a_checkpoint_is_in_place_one_step_later() -> None:
    """Where it is written while the student trains on."""
    calls = list[str]()
    run_legs(leg, lambda: calls.append("begun"), [Told("a", calls)], 0, 3, settle=lambda: calls.append("in place"))
    assert calls[2:] == ["a before 2", "begun", "a after 2", "in place", "a step 2", "a before 3", "begun", "a after 3"]


def test_a_run_that_is_done_trains_nothing() -> None:
    run_legs(lambda done: pytest.fail("trained"), lambda: pytest.fail("written"), [], 3, 3)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    request: Any = SimpleNamespace(
        manifest=SimpleNamespace(runtime=SimpleNamespace(signal_cache="disk")), parent=None, child="Luna-G000"
    )
    found = Run(request, Ancestry(None, None, ()), {}, tmp_path / "run")
    found.note(mlflow_run="r1")
    return found


def journal(run: Run, logged: list[int], survey: Any = lambda usage: usage, done: int = 0) -> Journal:
    registry: Any = SimpleNamespace(log_steps=lambda _, rows: logged.extend(step for step, _ in rows))
    laws: Any = SimpleNamespace(broken=[], to_dict=lambda: {"no_nan": {}})
    return Journal.of(run, registry, laws, survey, done)


def test_steps_are_logged_and_noted_before_their_checkpoint_and_go_on_from_it(run: Run) -> None:
    logged, written = list[int](), list[dict[str, Any]]()
    run_legs(leg, lambda: written.append(run.notes()), [journal(run, logged)], 0, 2)
    (noted,) = written
    assert logged == [0, 1] and noted["watch"] == {"no_nan": {}} and noted["usage"]["steps"] == 2
    assert "disk_bytes" not in noted and run.notes()["disk_bytes"] > 0, "with the checkpoint in it"
    assert journal(run, logged, done=2).usage.steps == 2


def test_a_step_that_will_come_again_is_not_logged(run: Run) -> None:
    """An actor that dies when it is asked what it took: the run goes on from the checkpoint before."""
    logged = list[int]()

    def dies(usage: Usage) -> Usage:
        raise ActorDied("killed")

    with pytest.raises(ActorDied):
        run_legs(leg, lambda: pytest.fail("written"), [journal(run, logged, dies)], 0, 3)
    assert logged == [] and "usage" not in run.notes()


def test_a_stop_and_a_spent_budget_end_a_run_behind_its_checkpoint(run: Run) -> None:
    written, spent = list[Any](), journal(run, [])
    with pytest.raises(Interrupted, match="stopped after step 2 of 3"):
        run_legs(leg, lambda: written.append(1), [Stop(lambda: True, 3)], 0, 3, lambda: written.append("in place"))
    assert written == [1, "in place"], "what ends a run waits for the checkpoint that it speaks of"
    spent.seconds = 61.0
    with pytest.raises(RunError, match=r"trained 1\.0 minutes, 2 of 3 steps"):
        run_legs(leg, lambda: written.append(2), [Minutes(1.0, spent, 3)], 0, 3)
    assert written == [1, "in place", 2]
    for most in (None, 2.0):
        run_legs(leg, lambda: None, [Minutes(most, spent, 3)], 0, 3)
    run_legs(leg, lambda: None, [Minutes(1.0, spent, 3)], 2, 3)


def test_receipts_are_metrics_by_source_and_go_on_from_the_checkpoint(run: Run) -> None:
    step = StepReport(0, 1.0, receipts={"docs/a b.jsonl": Receipt(3, 8, 4, 1.0, 0.5, 2, 0.75)})
    told = {name: value for name, value in metrics_of(step).items() if name.startswith("teacher/")}
    path = "teacher/docs_a_b.jsonl/"
    assert told == {path + "taught": 0.5, path + "weight": 0.25, path + "harm": 0.25, path + "throttle": 0.75}
    first = journal(run, [])
    first.after_step(step)
    first.before_checkpoint(1)
    again = journal(run, [], done=1)
    again.after_step(StepReport(1, 1.0, receipts={"docs/a b.jsonl": Receipt(3, 8, 8, 8.0)}))
    assert again.receipts.summary()["docs/a b.jsonl"]["taught"] == 0.75
