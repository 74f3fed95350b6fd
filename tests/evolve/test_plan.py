"""What ``ladder plan`` says beforehand is what the run shows afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder import cli
from tests.answers import result_of


def in_a_process(toy: Any, path: Path, *options: str) -> dict[str, Any]:
    """The plan of a process of its own, as people call it; memory is measured there."""
    command = [sys.executable, "-m", "ladder", "plan", str(path), "--home", str(toy.home), "--json", *options]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert shown.returncode == 0, shown.stderr
    (plan,) = result_of(shown.stdout, "plan")["plans"]
    return plan


def planned(toy: Any, path: Path, *options: str) -> dict[str, Any]:
    """The plan that the verb prints."""
    shown = CliRunner().invoke(cli.app, ["plan", str(path), "--home", str(toy.home), "--json", *options])
    assert shown.exit_code == 0, shown.stderr
    (plan,) = result_of(shown.stdout, "plan")["plans"]
    return plan


def left_by_runs(toy: Any) -> list[Path]:
    """Everything in the home but the copies of generations, which every verb that reads one makes."""
    return sorted(path for path in toy.home.rglob("*") if "generations" not in path.parts)


def distillation(toy: Any, **sections: Any) -> Path:
    """The fourth generation, whose teachers both speak."""
    return toy.manifest(
        3, "teacher_student_distillation", parent=2, request={"grandparent_gen": "Toy-G001"}, **sections
    )


TRUNCATED = {"wire": "topk", "top_k": 9, "signal_cache": "memory"}


@pytest.mark.parametrize("runtime", [{}, pytest.param(TRUNCATED, marks=pytest.mark.long)])
@pytest.mark.usefixtures("own_actors")
def test_a_plan_is_what_the_run_shows(copy_of: Callable[[], Any], runtime: dict[str, Any]) -> None:
    toy = copy_of()
    path = distillation(toy, training_params={"steps": 20}, runtime=runtime)
    before = left_by_runs(toy)
    price = in_a_process(toy, path, "--measure")["price"]
    assert price["dreams"] == "estimated" and price["timing"] == "probe" and price["unlearned_share"] == 0.0
    assert left_by_runs(toy) == before, "a plan leaves no trace"
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    (notes,) = (toy.home / "runs" / "Toy-G003").glob("*/run.json")
    usage = json.loads(notes.read_text())["usage"]
    assert price["wire_bytes"] == pytest.approx(usage["wire_bytes"], rel=0.2)
    assert price["cache_bytes"] == pytest.approx(usage["cache_bytes"], rel=0.2)
    assert price["memory_bytes"] == pytest.approx(usage["memory_bytes"], rel=0.2)
    # Other work on this machine can slow either down, so only the order of magnitude is sure.
    shown = (usage["step_seconds"] + usage["waited_seconds"]) / usage["steps"]
    assert shown / 20 < price["step_seconds"] < 20 * shown


def test_a_recipe_that_cannot_teach_is_told_before_it_runs(copy_of: Callable[[], Any]) -> None:
    """Both teachers are wrong about what is new, and the first sketch's routing tells the student to copy them."""
    toy = copy_of()
    path = distillation(toy, training_params={"steps": 20, "recipe": "logit_blending_kd", "alpha": 0.001})
    plan = planned(toy, path, "--measure")
    share = plan["price"]["unlearned_share"]
    assert share > 0.2 and any(f"{share:.0%} of the new tokens" in warning for warning in plan["warnings"])
    assert planned(toy, path)["price"]["unlearned_share"] is None


@pytest.mark.long
def test_the_run_logs_what_each_step_took(copy_of: Callable[[], Any]) -> None:
    toy = copy_of()
    toy.evolve(distillation(toy))
    (notes,) = (toy.home / "runs" / "Toy-G003").glob("*/run.json")
    content = json.loads(notes.read_text())
    client = toy.registry.store.client
    history = client.get_metric_history(content["mlflow_run"], "perf/wire_bytes")
    assert len(history) == 6 and sum(metric.value for metric in history) == content["usage"]["wire_bytes"] > 0
    final = client.get_run(content["mlflow_run"]).data.metrics
    assert final["perf/total_wire_bytes"] == content["usage"]["wire_bytes"]
    assert final["perf/total_cache_bytes"] == content["usage"]["cache_bytes"] > 0
    assert final["perf/peak_memory_bytes"] == sum(content["usage"]["memory_bytes"].values())
    assert {"perf/seconds", "perf/waited", "perf/cache_hit_share"} <= final.keys()


def test_a_probe_needs_the_parent(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    genesis, child = toy.manifest(0, "pretraining"), toy.manifest(1, "continual_pretraining", parent=0)
    assert planned(toy, genesis, "--measure")["price"]["timing"] == "probe"
    assert planned(toy, genesis, "--probe")["price"]["timing"] == "probe", "the old word"
    assert planned(toy, child)["price"] is None
    monkeypatch.setattr(sys, "argv", ["ladder", "plan", str(child), "--home", str(toy.home), "--measure"])
    assert cli.main() == 2 and "Toy-G000 first, or plan without --measure" in capsys.readouterr().err
    assert not toy.home.exists()
