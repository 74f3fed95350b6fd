"""A training under watch: it halts, or goes on and is judged by the laws gate. The steps are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder import spine
from ladder.errors import ActorDied, Halted
from ladder.exam import Answers, Exam
from ladder.laws import LawResult, evaluate_laws
from ladder.manifest import read_request
from ladder.models.load import load_tokenizer
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.run import hooks
from ladder.run import train as training
from ladder.run.hooks import Monitor
from ladder.setup.context import Run, Usage
from ladder.setup.exam import case_of, laws_of
from ladder.train.spec import StepReport

EVERY_FOUR = {"checkpoint_every": 4}
SPIKE = {"max_loss_spike": 2.0, "window": 3}


class Group:
    """A student that checkpoints, and writes what it is told to by step."""

    def __init__(self, says: dict[int, str]) -> None:
        self.says, self.done, self.checkpoints, self.asked = says, 0, list[int](), list[Any]()

    def checkpoint(self) -> int:
        self.checkpoints.append(self.done)
        return self.done

    def settle(self) -> None:
        """It was there at once."""

    def sample(self, openings: Any, sampling: Any) -> list[str]:
        self.asked.append((self.done, len(openings), sampling.seed))
        return ["fine", self.says.get(self.done, "fine")]


class Dataset:
    """Runs of one manifest of 10 steps, with given losses and texts."""

    def __init__(self, folder: Path, parent: Path) -> None:
        self.folder, self.parent, self.logged = folder, parent, list[int]()

    def run(self, laws: dict[str, Any], lr: float = 1e-3, runtime: Mapping[str, Any] = EVERY_FOUR) -> Run:
        names = {"child_gen": "Luna-G000", "training_method": "pretraining"}
        body = {
            "evolution_request": names,
            "data": {"train": ["rows.jsonl"]},
            "training_params": {"steps": 10, "lr": lr},
            "runtime": runtime,
            "laws": laws,
        }
        (self.folder / "rows.jsonl").write_text('{"text": "the tide"}\n')
        (self.folder / "manifest.json").write_text(json.dumps(body))
        request = read_request(self.folder / "manifest.json")
        return Run(request, Ancestry(None, None, ()), {}, self.folder / "runs" / request.digest[:16])

    def monitor(self, run: Run, group: Any, done: int) -> Monitor:
        return Monitor.of(run, load_tokenizer(self.parent), group, done)

    def train(self, run: Run, group: Any) -> Usage:
        run.note(mlflow_run="r1")
        log = SimpleNamespace(log_steps=lambda _, rows: self.logged.extend(step for step, _ in rows))
        progress = SimpleNamespace(step=lambda report: None)
        context: Any = SimpleNamespace(registry=log, console=SimpleNamespace(progress=lambda *_: nullcontext(progress)))
        nobody, laws = training.TrainingActors({}, {}, group), self.monitor(run, group, group.done)
        rounds = SimpleNamespace(whole=None, steps=lambda leg: (leg, None))
        return training._steps(run, context, nobody, rounds, laws, group.done)  # type: ignore[arg-type]


@pytest.fixture
def dataset(tmp_path: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    def stream(
        group: Group, teachers: Any, batches: Any, leg: range, runtime: Any, stop: Callable[[], bool]
    ) -> Iterator[StepReport]:
        for step in leg:
            if step != leg.start and stop():
                return
            group.done = step + 1
            yield StepReport(step, 9.0 if step == 5 else 1.0)

    monkeypatch.setattr(training, "stream", stream)
    monkeypatch.setattr(training, "fetch", lambda answer: answer)
    for module in (training, hooks):
        monkeypatch.setattr(module, "hear", lambda group, answer: [answer])
    return Dataset(tmp_path, parent)


def judged(run: Run) -> dict[str, LawResult]:
    case = case_of(run, Exam(), Answers({}, (), (), (), "d"), None)
    return {law.name: law for law in evaluate_laws(case, laws_of(run.request))}


def test_halt_ends_the_run_at_the_step_that_broke_the_law(dataset: Dataset) -> None:
    run, group = dataset.run({"training": SPIKE, "on_broken": "halt"}), Group({})
    with pytest.raises(
        Halted, match=r"law max_loss_spike halted the run at step 5: loss 9, .* median .* is 1"
    ) as caught:
        dataset.train(run, group)
    assert "a changed manifest is another run" in str(caught.value)
    assert (group.done, group.checkpoints, dataset.logged) == (6, [4], [0, 1, 2, 3, 4, 5])
    assert not run.candidate.exists()


def test_a_halted_run_does_not_go_on_but_a_changed_manifest_does(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failed = dataset.run({"training": SPIKE, "on_broken": "halt"}), list[str]()
    registry = SimpleNamespace(
        fail_run=lambda _, why: failed.append(why), generations=lambda family: [], history=lambda family: []
    )
    console = Console(quiet=True)
    context: Any = SimpleNamespace(registry=registry, home=dataset.folder, console=console, session=None, bare=0)
    monkeypatch.setattr(spine, "train", lambda run, *_: dataset.train(run, Group({})))
    with pytest.raises(Halted, match="halted the run at step 5"):
        spine.carry_out(run, context)
    # Not what was found, which of a text law is what the model wrote.
    assert failed == ["law max_loss_spike halted the run at step 5"]
    with pytest.raises(Halted, match="law max_loss_spike was halted before at step 5"):
        spine.carry_out(run, context)
    assert len(failed) == 1
    hooks.check_not_halted(dataset.run({"training": SPIKE, "on_broken": "halt"}, lr=1e-4))


def test_reject_goes_on_and_the_laws_gate_knows(dataset: Dataset) -> None:
    run = dataset.run({"training": SPIKE | {"min_entropy": 0.1}})
    assert dataset.train(run, Group({})).steps == 10
    laws = judged(run)
    found = laws["max_loss_spike"]
    assert (found.family, found.version, found.found.n) == ("training", 1, 7)
    assert found.parameters == {"max_loss_spike": 2.0, "window": 3}
    assert [violation.where for violation in found.found.violations] == ["step 5"]
    assert (laws["no_nan"].found.n, laws["no_nan"].found.violations) == (10, ())
    # No step told an entropy.
    assert [violation.found for violation in laws["min_entropy"].found.violations] == ["nothing was examined"]


READ = {"training": {"sample_every": 3}, "forbidden_text": ["secret"], "sampled_answers": 64}


def test_texts_are_sampled_at_their_steps_whatever_the_checkpoints(dataset: Dataset) -> None:
    run, group = dataset.run(READ), Group({6: "a secret"})
    dataset.train(run, group)
    # At most 16, each time others.
    assert group.asked == [(3, 16, 3), (6, 16, 6), (9, 16, 9)]
    assert group.checkpoints == [3, 4, 6, 8, 9, 10]
    law = judged(run)["sample_every"]
    assert law.parameters == {
        "sample_every": 3,
        "texts": 16,
        "sampled_tokens": 48,
        "forbidden_text": ["secret"],
    }
    assert (law.found.n, law.upper_bound) == (6, None)
    assert [violation.where for violation in law.found.violations] == ["step 6, sampled 2"]


def test_a_text_can_halt_too(dataset: Dataset) -> None:
    run, group = dataset.run(READ | {"on_broken": "halt"}), Group({6: "a secret"})
    with pytest.raises(Halted, match=r"law sample_every halted the run at step 6, sampled 2: forbidden_text: 'secret'"):
        dataset.train(run, group)
    assert group.done == 6


def test_a_run_that_is_cut_off_is_judged_as_one(dataset: Dataset) -> None:
    run, group = dataset.run({"training": SPIKE}), Group({})
    group.done = 4
    first = dataset.monitor(run, group, 0)
    for step in range(4):
        first.after_step(StepReport(step, 1.0))
    run.mark(4, watch=first.to_dict())
    dataset.train(run, group)
    assert judged(run)["max_loss_spike"].found.n == 7


def test_without_laws_of_training_nothing_is_asked(dataset: Dataset) -> None:
    run, group = dataset.run({}), Group({})
    dataset.train(run, group)
    assert (group.asked, group.checkpoints) == ([], [4, 8, 10])
    assert list(judged(run)) == ["sources"]


def test_what_was_spent_is_known_afterwards(dataset: Dataset) -> None:
    run = dataset.run({})
    dataset.train(run, Group({}))
    (run.folder / "big").write_bytes(b"0" * 2**20)
    usage = Usage(cache_bytes=2**20, memory_bytes={"student": 2**30, "teacher1": 2**29})
    run.note(usage=usage.to_dict(), disk_bytes=hooks.disk_bytes(run, usage))
    case = case_of(run, Exam(), Answers({}, (), (), (), "d"), None)
    assert case.memory_gib == 1.5
    assert case.disk_gib is not None and 2 / 2**10 <= case.disk_gib < 2.1 / 2**10


@pytest.mark.parametrize(
    ("every", "done", "ends"),
    [(None, 0, [4, 8, 10]), (3, 0, [3, 4, 6, 8, 9, 10]), (3, 5, [6, 8, 9, 10]), (None, 10, [])],
)
def test_legs(dataset: Dataset, every: int | None, done: int, ends: list[int]) -> None:
    run = dataset.run(READ | {"training": {"sample_every": every}} if every else {})
    watch, legs = dataset.monitor(run, Group({}), done), list[range]()
    while done < 10:
        legs.append(watch.leg(done, 10, 4))
        assert legs[-1].start == done
        done = legs[-1].stop
    assert [leg.stop for leg in legs] == ends


def test_a_checkpoint_comes_with_the_minutes_too(dataset: Dataset) -> None:
    often, seldom = Group({}), Group({})
    dataset.train(dataset.run({}, runtime={"checkpoint_every": 4, "checkpoint_minutes": 1e-9}), often)
    dataset.train(dataset.run({}, runtime={"checkpoint_every": 4, "checkpoint_minutes": 1e9}), seldom)
    assert often.checkpoints == [*range(1, 11)] and seldom.checkpoints == [4, 8, 10]


@pytest.mark.parametrize(("minutes", "written"), [(2.0, [3, 9, 10]), (0.5, [2, 4, 6, 8, 10])])
def test_the_first_checkpoint_comes_soon(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, minutes: float, written: list[int]
) -> None:
    """Steps of 20 s: whoever is killed young has not lost everything."""
    now, real = [0.0], training.stream

    def slow(*given: Any) -> Iterator[StepReport]:
        for report in real(*given):
            now[0] += 20.0
            yield report

    monkeypatch.setattr(training, "stream", slow)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    group = Group({})
    dataset.train(dataset.run({}, runtime={"checkpoint_every": 100, "checkpoint_minutes": minutes}), group)
    assert group.checkpoints == written


def test_what_a_checkpoint_was_not_written_for_is_forgotten(dataset: Dataset) -> None:
    """Killed between the notes and the checkpoint: the steps come again, and are noted once."""
    run, group = dataset.run({"training": SPIKE}), Group({})

    def dies() -> int:
        raise ActorDied("killed")

    whole, group.checkpoint = group.checkpoint, dies  # type: ignore[method-assign]
    with pytest.raises(ActorDied):
        dataset.train(run, group)
    assert dataset.logged == [0, 1, 2, 3] and run.notes()["tokens"] == run.marked(4)["tokens"]
    group.done, group.checkpoint = 0, whole  # type: ignore[method-assign]
    dataset.train(run, group)
    assert judged(run)["max_loss_spike"].found.n == 7 and run.notes()["usage"]["steps"] == 10
    assert list(run.notes()["marks"]) == ["4", "8", "10"] and run.marked(5) == {}
