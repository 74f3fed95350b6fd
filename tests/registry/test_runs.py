"""Runs: opened once for a manifest, steps logged once."""

from __future__ import annotations

import pytest

from ladder.errors import RegistryError
from ladder.manifest.names import Name
from ladder.registry import Source, open_registry

pytestmark = pytest.mark.usefixtures("fast_models")
CHILD = Name("Luna", 1)


def start(registry, digest="d" * 64, **more):
    return registry.start_run(CHILD, params={}, parents=[], tags={"manifest_digest": digest}, **more)


def test_params_tags_and_teachers(registry, make):
    teachers = [registry.record(make(f"Luna-G00{index}", index / 10)) for index in (0, 2)]
    params = {"training_params": {"lr": 1e-5, "shares": {"new": 0.5}}, "data": {"train": ["a.jsonl"]}, "seeds": {}}
    run_id = registry.start_run(CHILD, params=params, parents=teachers, tags={"manifest_digest": "d" * 64})
    run = registry.store.client.get_run(run_id)
    assert run.data.params == {
        "training_params.lr": "1e-05",
        "training_params.shares.new": "0.5",
        "data.train": '["a.jsonl"]',
        "seeds": "{}",
    }
    assert run.data.tags["ladder.manifest_digest"] == "d" * 64
    assert run.data.tags["mlflow.runName"] == "Luna-G001"
    assert {each.model_id for each in run.inputs.model_inputs} == {each.model_id for each in teachers}


def test_rows_and_probes_are_datasets_that_mlflow_finds_again(registry):
    from mlflow.data import get_source

    files = [
        Source("data/001.jsonl", "a" * 64, "local", "data/001.jsonl", "train"),
        Source("hf://tides/rows", "b" * 64, "hub", "hf://tides/rows", "train"),
        Source("data/001.probes.jsonl", "c" * 64, "local", "data/001.probes.jsonl", "eval"),
    ]
    for _ in range(2):
        run_id = start(registry, sources=files)
    found = registry.store.client.get_run(run_id).inputs.dataset_inputs
    told = {one.dataset.name: {tag.key: tag.value for tag in one.tags} for one in found}
    assert told == {one.name: {"mlflow.data.context": one.context, "ladder.digest": one.digest} for one in files}
    rows = next(one for one in found if one.dataset.name == "data/001.jsonl")
    assert get_source(rows).uri == "data/001.jsonl" and rows.dataset.digest == "a" * 12


def test_a_run_that_was_cut_off_is_opened_again(registry, make):
    parent = registry.record(make("Luna-G000"))
    first = registry.start_run(CHILD, params={"a": 1}, parents=[parent], tags={"manifest_digest": "d" * 64})
    again = registry.start_run(CHILD, params={"a": 1}, parents=[parent], tags={"manifest_digest": "d" * 64})
    assert first == again
    assert start(registry, "e" * 64) != first
    assert registry.start_run(CHILD) != first


def test_a_failed_run_says_why_and_is_opened_again(registry):
    run_id = start(registry)
    registry.fail_run(run_id, "the disk is full")
    run = registry.store.client.get_run(run_id)
    assert (run.info.status, run.data.tags["ladder.verdict"]) == ("FAILED", "FAILED")
    assert run.data.tags["ladder.reason"] == "the disk is full"
    assert start(registry) == run_id
    run = registry.store.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert "ladder.verdict" not in run.data.tags


def test_a_run_that_led_to_a_verdict_is_not_opened_again(registry, make):
    candidate = make("Luna-G001")
    run_id = registry.start_run(CHILD, tags={"manifest_digest": candidate.manifest_digest})
    registry.record(type(candidate)(**{**vars(candidate), "run_id": run_id}))
    assert registry.start_run(CHILD, tags={"manifest_digest": candidate.manifest_digest}) != run_id


def test_steps_are_logged_once(registry, home):
    run_id = start(registry)
    rows = [(step, {"loss": 1.0 / (step + 1), "tokens": 16.0 * step}) for step in range(700)]
    registry.log_steps(run_id, rows[:400])
    registry.log_steps(run_id, rows[390:500])
    open_registry(home).log_steps(run_id, [(step, {"loss": -1.0, "tokens": -1.0}) for step in range(490)] + rows[490:])
    for key in ("loss", "tokens"):
        history = registry.store.client.get_metric_history(run_id, key)
        assert [metric.step for metric in sorted(history, key=lambda each: each.step)] == list(range(700))
        assert min(metric.value for metric in history) >= 0


def test_a_deleted_experiment_says_how_to_restore_it(registry):
    run_id = start(registry)
    experiment = registry.store.client.get_run(run_id).info.experiment_id
    registry.store.client.delete_experiment(experiment)
    with pytest.raises(RegistryError, match="mlflow experiments restore --experiment-id"):
        start(registry)


def test_a_model_of_somebody_else_is_left_alone(registry, make):
    registry.store.client.create_registered_model("Luna")
    with pytest.raises(RegistryError, match="did not create"):
        registry.record(make("Luna-G000"))


def test_figures_that_come_later_are_appended_and_never_twice(registry, make):
    generation = registry.record(make("Luna-G001"))
    for figures in ({"suite.tides.acc": 0.5}, {"suite.tides.acc": 0.5}, {"suite.tides.acc": 0.75, "suite.sums.acc": 1}):
        registry.attach(generation, figures)
    assert registry.step_metrics(generation.run_id, "suite.") == {
        "tides.acc": [(0, 0.5), (1, 0.75)],
        "sums.acc": [(0, 1.0)],
    }
    run = registry.store.client.get_run(generation.run_id)
    assert run.data.metrics["suite.tides.acc"] == 0.75 and run.info.status == "FINISHED"
