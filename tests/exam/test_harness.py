"""Running a task of lm-evaluation-harness: what it is asked, with a stand-in, and one small task of the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ladder.errors import GateError, ManifestError
from ladder.exam.harness import Suite, check_task, evaluate
from ladder.exam.suites import find_metric


class FakeHarness:
    """Stands in for the harness: remembers how it was called, and answers what it was told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.managers: list[dict[str, Any]] = []
        self.answer: Any = {"results": {"tides": {"acc,none": 0.5}}, "samples": object(), "n-samples": {}}

    def manager(self, **settings: Any) -> Any:
        self.managers.append(settings)
        found = ModuleType("manager")
        found.all_tasks = ["tides"]  # type: ignore[attr-defined]
        return found

    def simple_evaluate(self, **asked: Any) -> Any:
        self.calls.append(asked | {"folder": Path.cwd()})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHarness:
    made = FakeHarness()
    parts: dict[str, dict[str, Any]] = {
        "lm_eval": {"simple_evaluate": made.simple_evaluate},
        "lm_eval.models": {},
        "lm_eval.models.huggingface": {"HFLM": lambda **given: given},
        "lm_eval.tasks": {"TaskManager": made.manager},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_the_harness_gets_the_loaded_model_and_every_setting(fake: FakeHarness, tiny_folder: Path, tmp_path) -> None:
    here = Path.cwd()
    found = evaluate(tiny_folder, Suite("tides", tmp_path, 10, 2, 4))
    (asked,) = fake.calls
    wrapped = asked.pop("model")
    assert wrapped["pretrained"].config.num_hidden_layers == 2 and wrapped["batch_size"] == 4
    assert wrapped["tokenizer"]("a cat")["input_ids"]
    assert asked.pop("task_manager").all_tasks == ["tides"]
    assert asked == {"tasks": ["tides"], "num_fewshot": 2, "batch_size": 4, "limit": 10, "log_samples": False} | {
        "folder": tmp_path.resolve()
    }
    assert Path.cwd() == here
    assert found == {"results": {"tides": {"acc,none": 0.5}}, "n-samples": {}}


def test_a_folder_of_tasks_is_looked_through_alone(fake: FakeHarness, tmp_path: Path) -> None:
    check_task(Suite("tides", tmp_path), "here")
    check_task(Suite("tides"), "here")
    assert fake.managers == [{"include_path": str(tmp_path), "include_defaults": False}, {}]
    with pytest.raises(ManifestError, match=r"gates\.metrics\.0: there is no task 'tide' in lm-evaluation-harness"):
        check_task(Suite("tide"), "gates.metrics.0")


def test_whatever_a_task_raises_ends_the_examination(fake: FakeHarness, tiny_folder: Path) -> None:
    fake.answer = KeyError("dataset")
    with pytest.raises(GateError, match=r"tides could not be run: KeyError\('dataset'\)"):
        evaluate(tiny_folder, Suite("tides"))


def test_the_real_harness_runs_a_local_task(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cats_task: Callable[[Path], None]
) -> None:
    pytest.importorskip("lm_eval", reason="the extra `suites` is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    cats_task(tmp_path)
    suite = Suite("cats", tmp_path, limit=2)
    check_task(suite, "here")
    figure = find_metric(evaluate(tiny_folder, suite), "cats", "acc")
    assert (figure.n, figure.greater_is_better, figure.remark) == (2, True, "")
    assert figure.value in (0.0, 0.5, 1.0) and figure.stderr is not None
    with pytest.raises(ManifestError, match="no task 'dogs'"):
        check_task(Suite("dogs", tmp_path), "here")
