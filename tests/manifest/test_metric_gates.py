"""Gates on other people's suites in the manifest: what they must say, and what belongs to the manifest's digest."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from ladder.errors import ManifestError
from ladder.manifest import load_manifest, read_request

SOURCE = {"task": "tides", "metric": "acc"}
LOCAL = SOURCE | {"include_path": "suites"}


def metric(**fields: Any) -> dict[str, Any]:
    return {"name": "tides", "source": SOURCE, "greater_is_better": True, "threshold": 0.5} | fields


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the harness's name."""
    module = ModuleType("lm_eval")
    module.__spec__ = ModuleSpec("lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval", module)


@pytest.fixture
def no_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladder.manifest.plugins.find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ([metric(threshold=None)], "metrics.0: holds the metric against nothing"),
        ([metric(name="laws")], "metrics.0.name: found 'laws', which another gate has"),
        ([metric(), metric()], "metrics.1.name: found 'tides', which another gate has"),
        ([metric(name="Tides.acc")], "metrics.0.name"),
        ([metric(min_relative_change=1.5)], "at most 1"),
        ([metric(source=SOURCE | {"include_path": " "})], "found an empty path"),
    ],
)
def test_a_gate_that_cannot_decide_is_refused(write, change, gates: list, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(change({"gates.metrics": gates})))
    assert said in str(caught.value)


@pytest.mark.parametrize("field", ["min_absolute_change", "min_relative_change"])
def test_a_genesis_has_no_parent_to_change_against(write, change, field: str) -> None:
    gone = "<take this key out>"
    names = {"evolution_request.parent_gen": gone, "evolution_request.grandparent_gen": gone}
    genesis = names | {"evolution_request.training_method": "pretraining"}
    load_manifest(write(change({**genesis, "gates.metrics": [metric()]})))
    with pytest.raises(ManifestError, match=f"{field}.*parent_gen is missing"):
        load_manifest(write(change({**genesis, "gates.metrics": [metric(**{field: 0.1})]})))


def test_without_the_harness_the_manifest_is_refused(write, change, no_harness) -> None:
    read_request(write(change({})))
    with pytest.raises(ManifestError, match=r"not installed \(pip install 'generation-ladder\[suites\]'\)"):
        read_request(write(change({"gates.metrics": [metric()]})))


def test_the_files_of_a_task_belong_to_the_manifest(write, change, harness) -> None:
    path = write(change({"gates.metrics": [metric(source=LOCAL), metric(name="more", source=LOCAL)]}))
    suites = path.parent / "suites"
    (suites / "deep" / "__pycache__").mkdir(parents=True)
    (suites / "tides.yaml").write_text("task: tides")
    (suites / "deep" / "tides.jsonl").write_text("{}")
    before = read_request(path)
    assert list(before.files)[2:] == ["suites/deep/tides.jsonl", "suites/tides.yaml"]
    assert before.file("suites/tides.yaml") == suites / "tides.yaml"
    (suites / "deep" / "__pycache__" / "code.pyc").write_text("compiled")
    assert read_request(path).digest == before.digest
    (suites / "deep" / "tides.jsonl").write_text("{} ")
    assert read_request(path).digest != before.digest


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no existing folder"), (".", "holds the manifest itself")])
def test_a_folder_that_cannot_be_meant_is_refused(write, change, harness, folder: str, said: str) -> None:
    gates = [metric(source=SOURCE | {"include_path": folder})]
    with pytest.raises(ManifestError, match=said):
        read_request(write(change({"gates.metrics": gates})))


def test_a_genesis_needs_a_maximum_of_calibration(write, change) -> None:
    gone = "<take this key out>"
    names = {"evolution_request.parent_gen": gone, "evolution_request.grandparent_gen": gone}
    genesis = names | {"evolution_request.training_method": "pretraining"}
    load_manifest(write(change({"gates.calibration": {}})))
    load_manifest(write(change({**genesis, "gates.calibration": {"maximum": 0.3}})))
    with pytest.raises(ManifestError, match=r"gates.calibration.*maximum is 1"):
        load_manifest(write(change({**genesis, "gates.calibration": {}})))


def test_calibration_is_a_gate_of_its_own_only_where_it_is_asked_for(write, change, harness) -> None:
    taken = metric(name="calibration")
    load_manifest(write(change({"gates.metrics": [taken]})))
    with pytest.raises(ManifestError, match="found 'calibration', which another gate has"):
        load_manifest(write(change({"gates.metrics": [taken], "gates.calibration": {}})))
