"""Recording: what is stored is what was examined, once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError
from ladder.models.digest import folder_digest
from ladder.models.load import load_model
from ladder.registry import Candidate, Registry, Verdict, artifacts, open_registry
from ladder.registry import record as recording
from ladder.registry.record import check_reload

PROBE = torch.arange(12).reshape(1, 12)


def test_a_recorded_child_carries_everything(registry, make):
    root = registry.record(make("Luna-G000"))
    child = registry.record(make("Luna-G001", 0.1, parent=root, note="Why it exists."))
    assert (child.verdict, child.attempt, child.ref) == (Verdict.PASSED, 1, "Luna-G001")
    assert (child.parent, child.parent_name) == (root.digest, "Luna-G000")
    assert child.metrics == {"gate.recall": 0.6}
    assert child.note == "Why it exists."
    assert not child.is_head and registry.head("Luna") is None
    assert registry.find("Luna-G001") == child
    version = registry.store.client.get_model_version("Luna", str(child.version))
    told, links = version.description.split("\n\n")
    assert told == "Luna-G001, supervised fine tuning from Luna-G000, passed its gates. Why it exists."
    assert f"[manifest](#/experiments/1/runs/{child.run_id}/artifacts/ladder/manifest.json?" in links
    shown = ["verdict", "name", "parent_name", "attempt", "digest"]
    assert list(version.tags) == [f"ladder.{tag}" for tag in shown]
    run = registry.store.client.get_run(child.run_id)
    assert run.info.status == "FINISHED"
    assert [each.model_id for each in run.inputs.model_inputs] == [root.model_id]
    assert [each.model_id for each in run.outputs.model_outputs] == [child.model_id]
    assert run.data.tags["mlflow.note.content"].startswith("# Luna-G001")


def test_recording_twice_gives_one_version(registry, make):
    candidate = make("Luna-G000")
    assert registry.record(candidate) == registry.record(candidate)
    assert len(registry.generations("Luna")) == 1


def test_a_child_that_another_process_registered_meanwhile_is_found(registry: Registry, make, monkeypatch):
    """Between the first look and the lock."""
    candidate, whole = make("Luna-G000"), recording._check_digest

    def meanwhile(candidate: Candidate) -> None:
        monkeypatch.setattr(recording, "_check_digest", whole)
        open_registry(registry.home).record(candidate)

    monkeypatch.setattr(recording, "_check_digest", meanwhile)
    assert registry.record(candidate).attempt == 1
    assert len(registry.generations("Luna")) == 1


def test_another_manifest_or_other_weights_are_another_attempt(registry, make):
    first = make("Luna-G000", passed=False, failed_gates=["tone"])
    assert registry.record(first).attempt == 1
    assert registry.record(replace(first, manifest_digest="f" * 64)).ref == "Luna-G000.2"
    assert registry.record(make("Luna-G000", 0.3)).ref == "Luna-G000.3"
    assert registry.decided(first.name, "f" * 64).attempt == 2
    assert registry.decided(first.name, "e" * 64) is None


def test_a_rejected_child_is_kept_and_written_down_once(registry, make):
    candidate = make("Luna-G000", passed=False, failed_gates=["recall", "tone"], metrics={"gate.tone": math.nan})
    for _ in range(2):
        rejected = registry.record(candidate)
    assert rejected.verdict is Verdict.REJECTED
    assert rejected.failed_gates == ("recall", "tone")
    events = registry.history("Luna")
    assert [(event.kind, event.to_ref, event.reason) for event in events] == [("reject", "Luna-G000", "recall, tone")]
    plain = json.loads(json.dumps(rejected.to_dict(), allow_nan=False))
    assert (plain["verdict"], plain["metrics"]) == ("REJECTED", {"gate.tone": None})


def test_a_folder_that_changed_after_its_exam_is_refused(registry, make):
    candidate = make("Luna-G000")
    with pytest.raises(ModelError, match="examined was 000000"):
        registry.record(replace(candidate, digest="0" * 64))
    assert registry.generations("Luna") == []


def test_a_model_that_is_stored_wrong_is_not_registered(registry: Registry, make, monkeypatch):
    whole = artifacts.upload

    def corrupt(store, model_id: str, folder: Path) -> None:
        _shift_weights(folder / "model", 1e-3)
        whole(store, model_id, folder)

    candidate = make("Luna-G000")
    monkeypatch.setattr(artifacts, "upload", corrupt)
    with pytest.raises(ModelError, match="logits differ"):
        registry.record(candidate)
    assert registry.generations("Luna") == []
    assert registry.families() == []
    monkeypatch.undo()
    assert registry.record(candidate).attempt == 1
    assert registry.verify("Luna") == []


def test_a_sidecar_that_is_stored_wrong_is_not_registered(registry: Registry, make, monkeypatch):
    whole = artifacts.upload

    def corrupt(store, model_id: str, folder: Path) -> None:
        (folder / "ladder" / "probes.jsonl").write_text("")
        whole(store, model_id, folder)

    monkeypatch.setattr(artifacts, "upload", corrupt)
    with pytest.raises(ModelError, match=r"ladder/probes\.jsonl was changed"):
        registry.record(make("Luna-G000"))
    assert registry.generations("Luna") == []


@pytest.mark.parametrize(("shift", "refused"), [(0.0, False), (1e-9, False), (1e-3, True), (math.nan, True)])
def test_the_reload_check_has_its_tolerance(registry, make, tmp_path, shift, refused):
    candidate = make("Luna-G000")
    stored = tmp_path / "stored"
    recording.stage(candidate, stored, run_id="r", model_id="m")
    _shift_weights(stored / "model", shift)
    if refused:
        with pytest.raises(ModelError, match="logits differ"):
            check_reload(candidate.folder, stored)
    else:
        check_reload(candidate.folder, stored)


def test_an_adapter_is_kept_beside_the_merged_weights(registry, make):
    candidate = make("Luna-G001", 0.1, base_digest="b" * 64, adapter_digest="a" * 64)
    adapter = candidate.folder / "adapter"
    adapter.mkdir()
    save_file({"lora_A.weight": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"r": 2}')
    recorded = registry.record(candidate)
    folder = registry.materialize(recorded)
    assert (recorded.base_digest, recorded.adapter_digest) == ("b" * 64, "a" * 64)
    assert load_file(folder / "adapter" / "adapter_model.safetensors")["lora_A.weight"].sum() == 4
    assert folder_digest(folder) == candidate.digest


def test_bfloat16_weights_stay_bfloat16(registry, make):
    candidate = make("Luna-G000")
    model = load_model(candidate.folder, "bfloat16")
    model.save_pretrained(candidate.folder)
    recorded = registry.record(replace(candidate, digest=folder_digest(candidate.folder)))
    weights = load_file(registry.materialize(recorded) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_pickled_weights_and_code_are_not_stored(registry, make):
    candidate = make("Luna-G000")
    for name in ("pytorch_model.bin", "modeling_luna.py"):
        (candidate.folder / name).write_bytes(b"poison")
    (candidate.folder / "LICENSE").write_text("Apache-2.0")
    stored = {path.name for path in registry.materialize(registry.record(candidate)).iterdir()}
    assert not stored & {"pytorch_model.bin", "modeling_luna.py"}
    assert "LICENSE" in stored


def test_mlflow_itself_loads_head(registry, make, monkeypatch):
    import mlflow

    promoted = registry.promote(registry.record(make("Luna-G000")), expected=None, reason="genesis")
    mlflow.set_tracking_uri(registry.tracking_uri)
    pipeline = mlflow.transformers.load_model("models:/Luna@HEAD")
    ours = load_model(registry.materialize(promoted))
    with torch.no_grad():
        assert torch.equal(pipeline.model.to("cpu")(PROBE).logits, ours(PROBE).logits)
    assert "the moon" in pipeline("the moon", max_new_tokens=2)[0]["generated_text"]


def _shift_weights(folder: Path, shift: float) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({key: value + shift for key, value in weights.items()}, folder / "model.safetensors")
