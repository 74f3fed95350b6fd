"""What MLflow's pages say of a family: a description, names and figures that its lists show."""

from __future__ import annotations

import json

import pytest

from ladder.registry import Registry, glance
from tests.registry.conftest import MakeCandidate

pytestmark = pytest.mark.usefixtures("fast_models")
FIGURES = {"gate.recall": 0.25, "gate.recall.threshold": 0.9, "gate.recall.parent": 0.95, "gate.passed": 0.0}


def told(registry: Registry) -> str:
    return str(registry.store.client.get_registered_model("Luna").description)


def reject(registry: Registry, make: MakeCandidate, name: str = "Luna-G003", shift: float = 0.3) -> None:
    parent = registry.head("Luna")
    registry.record(
        make(name, shift, parent=parent, passed=False, failed_gates=["recall", "tone"], metrics=FIGURES, note="<b>why")
    )


def test_the_family_at_a_glance(luna: Registry, make: MakeCandidate) -> None:
    reject(luna, make)
    text, refused, head = told(luna), luna.find("Luna-G003"), luna.find("Luna@HEAD")
    page = f"#/experiments/1/runs/{refused.run_id}/artifacts/ladder/report.html?workflowType=machine_learning"
    first, back, last, *_ = text.split("\n\n")
    assert first.startswith("**HEAD is [Luna-G002](#/models/Luna/versions/3)** since 20") and "recall 0.700" in first
    assert "`ladder rollback Luna --to Luna-G001 --reason" in back
    assert "✗ rejected by recall, tone: recall 0.250, its bound is 0.900, the parent has 0.950." in last
    assert f"[which answers it lost]({page})" in last and f"{head.run_id}%22%2C%20%22{refused.run_id}%22%5D" in last
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert [row.split("]")[0].split("[")[-1] for row in rows[2:]] == [f"Luna-G00{index}" for index in (3, 2, 1, 0)]
    assert "| ✗ REJECTED: recall, tone | 0.250 |  |  |  | [page](" in rows[2] and "(HEAD)** | ✓ PROMOTED" in rows[3]
    assert "Luna-G002  ✓ PROMOTED  <- HEAD\nLuna-G003  ✗ REJECTED: recall, tone\n```" in text
    luna.rollback("Luna", reason="worse")
    assert "**HEAD is [Luna-G001](" in told(luna) and "Luna-G001  ✓ PROMOTED  <- HEAD" in told(luna)


def test_what_a_person_wrote_stays_and_what_has_no_room_is_left_alone(luna: Registry, make: MakeCandidate) -> None:
    client = luna.store.client
    for written in ("Generations of the Luna family. The alias HEAD marks the live one.", ""):
        client.update_registered_model("Luna", description=written)
        luna.settle("Luna")
        assert told(luna).endswith(glance.MARK) and "The alias HEAD marks" not in told(luna)
    client.update_registered_model("Luna", description=told(luna) + "\n\nAsk Ada before you roll back.")
    reject(luna, make)
    assert told(luna).endswith(f"{glance.MARK}\n\nAsk Ada before you roll back.") and "Luna-G003" in told(luna)
    client.update_registered_model("Luna", description="Somebody's own." + 2500 * " x")
    luna.settle("Luna")
    assert "**HEAD is" not in told(luna)
    client.update_registered_model("Luna", description="Somebody's own.")
    luna.settle("Luna")
    assert told(luna).startswith("**HEAD is") and told(luna).endswith(f"{glance.MARK}\n\nSomebody's own.")


def test_more_generations_than_have_room(luna: Registry, make: MakeCandidate, monkeypatch: pytest.MonkeyPatch) -> None:
    reject(luna, make)
    whole = len(told(luna))
    monkeypatch.setattr(glance, "LENGTH", whole - 1)
    reject(luna, make, shift=0.4)
    assert len(told(luna)) < whole and "Luna-G003.2  ✗" in told(luna) and "Luna-G000  ✓" not in told(luna)
    assert " more: `ladder lineage Luna`, or the versions below." in told(luna)


def test_a_rejected_child_is_told_in_every_list(luna: Registry, make: MakeCandidate) -> None:
    reject(luna, make)
    refused, client = luna.find("Luna-G003"), luna.store.client
    run = client.get_run(refused.run_id)
    assert (run.info.status, run.info.run_name) == ("FAILED", "Luna-G003 rejected: recall, tone")
    assert run.data.tags["mlflow.runColor"] and run.data.tags["ladder.verdict"] == "REJECTED"
    version = client.get_model_version("Luna", str(refused.version))
    assert version.description.startswith("✗ REJECTED by recall, tone: Luna-G003, ")
    assert "&lt;b&gt;why" in version.description
    assert luna.verify("Luna") == []


def test_figures_have_one_name_in_runs_and_models(luna: Registry, make: MakeCandidate) -> None:
    reject(luna, make)
    refused, client = luna.find("Luna-G003"), luna.store.client
    figures = {name: value for name, value in client.get_run(refused.run_id).data.metrics.items() if "gates/" in name}
    assert figures == {"gates/recall": 0.25, "gates/passed": 0.0}
    found = client.get_logged_model(refused.model_id).metrics
    assert {metric.key: metric.value for metric in found} == figures


def test_experiments_open_as_those_of_trainings_and_edits_stay(luna: Registry) -> None:
    client = luna.store.client
    experiment = client.get_experiment_by_name("Luna")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    columns = json.loads(experiment.tags["mlflow.sharedViewState.ladder"])["selectedColumns"]
    assert "metrics.`gates/recall`" in columns and "tags.`ladder.verdict`" in columns
    # Of a home from before there is none of them, and what a person wrote is left.
    client.delete_experiment_tag(experiment.experiment_id, "mlflow.experimentKind")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    luna.settle("Luna")
    tags = client.get_experiment_by_name("Luna").tags
    assert (tags["mlflow.experimentKind"], tags["mlflow.note.content"]) == ("custom_model_development", "mine")
    assert "[Luna](#/models/Luna)" in client.get_experiment_by_name("Luna history").tags["mlflow.note.content"]
