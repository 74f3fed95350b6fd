"""Suites in an examination: who sits what, what is never sat twice, and what a gate reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from ladder import spine
from ladder.actors.placement import Machine
from ladder.actors.remote import EvaluatorActor
from ladder.errors import ManifestError
from ladder.exam.harness import Suite
from ladder.exam.suites import SuiteMetric
from ladder.manifest.request import Request, read_request
from ladder.models.digest import folder_digest
from ladder.planning.plan import make_plans
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup import suites
from ladder.setup.context import Run

GATES = """
    - {name: tides, source: {task: tides, metric: acc, include_path: suites}, threshold: 0.5, greater_is_better: true}
    - {name: loss, source: {task: tides, metric: nll, include_path: suites}, threshold: 9, greater_is_better: false}
    - {name: sums, source: {task: sums, metric: acc, limit: 5}, threshold: 0.5, greater_is_better: true}
"""
Read = Callable[..., Request]


class Harness:
    """Stands in for the harness: whatever a folder sits, it reaches 0.75 there, and no second metric of sums."""

    def __init__(self) -> None:
        self.sat: list[tuple[str, Suite]] = []

    def evaluate(self, folder: Path, suite: Suite, device: str, dtype: str) -> dict[str, Any]:
        assert (device, dtype) == ("cpu", "float32")
        self.sat.append((folder.name, suite))
        return {"results": {suite.task: {"acc,none": 0.75} | ({"nll,none": 2.0} if suite.task == "tides" else {})}}


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """``read(gates)``: a request with these gates; its task file is ``suites/tides.yaml``."""
    monkeypatch.setattr("ladder.manifest.plugins.find_spec", lambda name: True)
    monkeypatch.setattr(suites, "version", lambda name: "1")
    monkeypatch.setattr(suites, "fetch", lambda outputs: outputs)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "tides.yaml").write_text("task: tides")
    (tmp_path / "rows.jsonl").write_text('{"text": "Aye."}\n')

    def read(gates: str = GATES) -> Request:
        (tmp_path / "manifest.yaml").write_text(
            "evolution_request: {child_gen: Toy-G001, parent_gen: Toy-G000, training_method: continual_pretraining}\n"
            f"data: {{train: [rows.jsonl]}}\ngates:\n  metrics:{gates}"
        )
        return read_request(tmp_path / "manifest.yaml")

    return read


def examined(request: Request, home: Path, child: Path, parent: Path | None) -> tuple[suites.Suites, Harness]:
    """What child and parent reached, and what they sat for it; the evaluator is the actor without Ray."""
    harness, evaluator = Harness(), SimpleNamespace(run_suite=SimpleNamespace(remote=EvaluatorActor().run_suite))
    known = SimpleNamespace(digest=folder_digest(parent)) if parent else None
    run: Any = SimpleNamespace(
        request=request, candidate=child, ancestry=SimpleNamespace(parent=known), teachers={1: parent}
    )
    slot = SimpleNamespace(device="cpu")
    session = SimpleNamespace(
        placement=lambda runtime, roles: SimpleNamespace(slots={"evaluator": slot}),
        start=lambda placement, roles: {"evaluator": evaluator},
        check_home=lambda home: None,
        machine=Machine.alone(1),
    )
    work: Any = SimpleNamespace(home=home, session=session, console=Console(quiet=True))
    with patch("ladder.actors.remote.harness.evaluate", harness.evaluate):
        return suites.measure_suites(run, work), harness


def test_child_and_parent_sit_each_suite_once(read: Read, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    child, parent = make_folder(1), make_folder(2)
    found, harness = examined(read(), tmp_path, child, parent)
    tides, sums = Suite("tides", tmp_path / "suites"), Suite("sums", limit=5)
    assert harness.sat == [(folder.name, suite) for folder in (child, parent) for suite in (tides, sums)]
    assert (
        found.child == {"tides": SuiteMetric(0.75), "loss": SuiteMetric(2.0), "sums": SuiteMetric(0.75)} == found.parent
    )


def test_nobody_sits_a_suite_twice_unless_it_changed(
    read: Read, tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, grandchild = make_folder(1), make_folder(2)
    examined(read(), tmp_path, child, None)
    found, harness = examined(read(), tmp_path, grandchild, child)
    assert harness.sat == [
        (grandchild.name, Suite("tides", tmp_path / "suites")),
        (grandchild.name, Suite("sums", limit=5)),
    ]
    assert found.parent == found.child
    (tmp_path / "suites" / "tides.yaml").write_text("task: tides # another")
    assert [suite.task for _, suite in examined(read(), tmp_path, child, None)[1].sat] == ["tides"]
    other = GATES.replace("limit: 5", "limit: 6")
    assert [suite.task for _, suite in examined(read(other), tmp_path, child, None)[1].sat] == ["sums"]
    monkeypatch.setattr(suites, "version", lambda name: "2")
    assert len(examined(read(), tmp_path, child, None)[1].sat) == 2
    monkeypatch.setattr(suites, "ASKING", 0)
    assert len(examined(read(), tmp_path, child, None)[1].sat) == 2, "texts began otherwise then"


def test_a_damaged_file_of_the_cache_is_no_result(read: Read, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    child = make_folder(1)
    examined(read(), tmp_path, child, None)
    for path in (tmp_path / "cache" / "suites").iterdir():
        path.write_text(path.read_text().replace(folder_digest(child), "d" * 64))
    assert len(examined(read(), tmp_path, child, None)[1].sat) == 2


def test_a_metric_that_is_not_there_is_no_figure(read: Read, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    found, _ = examined(read(GATES.replace("metric: nll", "metric: f1")), tmp_path, make_folder(1), None)
    assert math.isnan(found.child["loss"].value)
    assert "no metric 'f1'; there are 'acc,none', 'nll,none'" in found.child["loss"].remark
    assert found.parent == {}


def test_without_metric_gates_nothing_is_sat(read: Read, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    found, harness = examined(read(" []"), tmp_path, make_folder(1), None)
    assert (found, harness.sat) == (suites.Suites(), [])


def test_tasks_are_checked_before_training(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(suites, "check_task", lambda suite, where: checked.append((suite.task, where)))
    request = read()
    suites.check_suites(request)
    fields = [f"{request.path}: gates.metrics.{index}.source.task" for index in range(3)]
    assert checked == list(zip(["tides", "tides", "sums"], fields, strict=True))


def test_an_unknown_task_is_refused_before_training(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(suite: Suite, where: str) -> None:
        raise ManifestError(f"there is no task {suite.task!r}", where=where)

    monkeypatch.setattr(suites, "check_task", refuse)
    run = Run(read(), Ancestry(None, None, ()), {}, tmp_path / "run")
    nobody: Any = SimpleNamespace(home=tmp_path, registry=None, session=None, console=Console(quiet=True), bare=0)
    with pytest.raises(ManifestError, match="there is no task 'tides'"):
        spine.carry_out(run, nobody)
    with pytest.raises(ManifestError, match="there is no task 'tides'"):
        make_plans([run.request], tmp_path / "home")
