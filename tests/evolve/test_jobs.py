"""What a Ray Job carries out, called in this process: started twice it decides once; reading ahead; gates again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ladder.jobs import evaluate, evolve, warm_cache
from ladder.manifest import read_requests
from ladder.setup import run_folder
from tests.answers import check_document
from tests.processes import check_nobody_is_left, launch

CHILD = {"request": {"grandparent_gen": "Toy-G001"}, "runtime": {"threads": 1, "checkpoint_every": 3}}
SHARDS = "cache/signals/*/*.safetensors"


@pytest.fixture
def started(ray_session: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, Any, str]]:
    """``started(job, home, *operands)``: its exit code, what it answers, and what it says beside that."""
    monkeypatch.setattr("ladder.actors.session.Session", lambda: nullcontext(ray_session))

    def start(job: Any, home: Path, *operands: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = job.main(["--home", str(home), *map(str, operands)])
        printed = capsys.readouterr()
        told = check_document(printed.out)["result"]["outcomes"] if printed.out else None
        return code, told, printed.err

    return start


def usage(toy: Any, path: Path) -> dict[str, Any]:
    (request,) = read_requests([path])
    taken: dict[str, Any] = json.loads((run_folder(request, toy.home) / "run.json").read_text())["usage"]
    return taken


def test_a_job_that_is_started_again_decides_once(toy: Any, started: Any) -> None:
    """As RayJob does after a failure: one version, one digest, nothing trained twice."""
    path = toy.manifest(0, "pretraining")
    code, (first,), _ = started(evolve, toy.home, path)
    assert (code, first["verdict"], first["trained"]) == (0, "PROMOTED", True)
    steps = toy.registry.step_metrics(toy.registry.head("Toy").run_id, "loss/")
    before = [(known.ref, known.digest, known.is_head) for known in toy.registry.generations("Toy")]
    history = toy.registry.history("Toy")
    code, (again,), _ = started(evolve, toy.home, path)
    assert (code, again["verdict"], again["trained"]) == (0, "PROMOTED", False)
    assert "decided before; nothing was trained" in again["detail"]
    assert [(known.ref, known.digest, known.is_head) for known in toy.registry.generations("Toy")] == before
    assert toy.registry.history("Toy") == history and len(before) == 1
    assert toy.registry.step_metrics(toy.registry.head("Toy").run_id, "loss/") == steps


@pytest.mark.long
def test_a_job_that_is_killed_and_started_again_gives_one_version(toy: Any, started: Any, tmp_path: Path) -> None:
    """SIGKILL after a checkpoint, as where a pod is evicted; RayJob's next attempt is the same command."""
    steps = {"steps": 40, "lr": 0.003, "batch_size": 9}
    path = toy.manifest(0, "pretraining", training_params=steps, runtime={"checkpoint_every": 5, "threads": 1})
    killed = type(toy)(toy.folder)
    killed.home = tmp_path / "killed"
    kill_after_first_checkpoint(
        [sys.executable, "-m", "ladder.jobs.evolve", "--home", str(killed.home), str(path)], killed.home
    )
    assert killed.registry.generations("Toy") == []
    for home, trained in ((killed.home, True), (killed.home, False), (toy.home, True)):
        code, (told,), _ = started(evolve, home, path)
        assert (code, told["verdict"], told["trained"]) == (0, "PROMOTED", trained)
    (again,), (whole,) = killed.registry.generations("Toy"), toy.registry.generations("Toy")
    assert again.digest == whole.digest and again.is_head
    assert [event.kind for event in killed.registry.history("Toy")] == ["promote"]


def kill_after_first_checkpoint(command: list[str], home: Path) -> None:
    """Ray's processes are in sessions of their own, and end all the same."""
    process = launch(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(home.glob("runs/Toy-G000/*/checkpoints/step-*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    check_nobody_is_left(process.pid)


def test_a_training_finds_all_that_was_read_ahead(copy_of: Callable[..., Any], started: Any) -> None:
    """Micro-batches are the run's own, so without dreams not a bit is other than in a run that reads by itself."""
    cold, ahead = copy_of("cold"), copy_of("ahead")
    for toy in (cold, ahead):
        toy.manifest(3, "teacher_student_distillation", parent=2, stabilizers={"dreams": False}, **CHILD)
    path = ahead.folder / "003.json"
    code, (told,), said = started(warm_cache, ahead.home, path)
    assert (code, told["verdict"]) == (0, "WARM") and "micro-batches asked" in said
    assert all(one["misses"] > 0 and one["stored_bytes"] > 0 for one in told["teachers"].values())
    assert told["teachers"].keys() == {"1", "2"}
    before = sorted(ahead.home.glob(SHARDS))
    code, (again,), _ = started(warm_cache, ahead.home, path)
    assert code == 0 and all((one["misses"], one["stored_bytes"]) == (0, 0) for one in again["teachers"].values())
    for toy in (cold, ahead):
        (outcome,) = toy.evolve(toy.folder / "003.json")
        assert outcome.verdict == "PROMOTED", outcome.detail
    warmed, plain = usage(ahead, path), usage(cold, cold.folder / "003.json")
    assert (warmed["misses"], warmed["cache_bytes"]) == (0, 0) and plain["misses"] > 0
    assert sorted(ahead.home.glob(SHARDS)) == before
    assert ahead.registry.head("Toy").digest == cold.registry.head("Toy").digest
    assert warmed["wire_bytes"] == plain["wire_bytes"] and plain["cache_bytes"] > 0


def test_dreams_that_nobody_wrote_are_left_to_the_training(copy_of: Callable[..., Any], started: Any) -> None:
    """Packed, and with a teacher that sees more: what is not a dream is there, and no stand-in is."""
    toy, cold = copy_of(), copy_of("cold")
    shown = {"data": {"packing": True}, "teachers": {"teacher1": {"context": "{text} "}}}
    path, other = (one.manifest(3, "teacher_student_distillation", parent=2, **CHILD, **shown) for one in (toy, cold))
    _, (told,), _ = started(warm_cache, toy.home, path)
    for one in (toy, cold):
        (outcome,) = one.evolve(one.folder / "003.json")
        assert outcome.verdict == "PROMOTED", outcome.detail
    read, late = sum(one["misses"] for one in told["teachers"].values()), usage(toy, path)["misses"]
    (request,) = read_requests([path])
    dreams = (run_folder(request, toy.home) / "dreams.jsonl").read_text().splitlines()
    assert read > 0 and 0 < late <= len(dreams) and read + late == usage(cold, other)["misses"]
    before = len(list(toy.home.glob(SHARDS)))
    code, (after,), _ = started(warm_cache, toy.home, path)
    assert (code, after["verdict"]) == (0, "NOTHING") and "decided before" in after["detail"]
    assert len(list(toy.home.glob(SHARDS))) == before


def test_a_full_cache_ends_the_reading(copy_of: Callable[..., Any], started: Any) -> None:
    toy = copy_of()
    small = {"request": CHILD["request"], "runtime": {"threads": 1, "in_flight": 1, "signal_cache_gib": 6e-6}}
    path = toy.manifest(3, "teacher_student_distillation", parent=2, training_params={"steps": 30}, **small)
    code, (told,), _ = started(warm_cache, toy.home, path)
    assert (code, told["verdict"]) == (0, "FULL") and "runtime.signal_cache_gib: 6e-06" in told["detail"]
    assert all(one["full"] and one["stored_bytes"] < 6e-6 * 2**30 for one in told["teachers"].values())


def test_what_cannot_be_read_ahead_is_told(copy_of: Callable[..., Any], started: Any) -> None:
    toy = copy_of()
    method = "teacher_student_distillation"
    lost = toy.manifest(3, method, parent=2, **CHILD | {"runtime": {"signal_cache": "memory"}})
    waits = toy.manifest(4, method, parent=3, request={"grandparent_gen": "Toy-G002"})
    alone = toy.manifest(5, "supervised_fine_tuning", parent=2, stabilizers={"dreams": False})
    code, told, _ = started(warm_cache, toy.home, lost, waits, alone)
    assert code == 2 and [one["verdict"] for one in told] == ["FAILED", "WAITS", "NOTHING"]
    assert "runtime.signal_cache" in told[0]["detail"] and "expected disk" in told[0]["detail"]
    assert "Toy-G003" in told[1]["detail"] and [one["exit_code"] for one in told] == [2, 0, 0]
    assert toy.registry.history("Toy") and not list(toy.home.glob("runs/Toy-G003/*/run.json"))


def test_generations_are_examined_again_by_the_evaluator(
    copy_of: Callable[..., Any], started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the verb's figures and its exit codes; a gate that fails is a verdict, and the job ended well."""
    from ladder.verbs.compare import reevaluate

    toy = copy_of()
    registry = toy.registry
    before = registry.history("Toy")
    here = json.loads(json.dumps(reevaluate(registry, registry.find("Toy-G002")).to_dict()))
    monkeypatch.delattr("ladder.exam.ask.run_prompts")  # In this process; the evaluator has its own.
    code, (again, genesis), _ = started(evaluate, toy.home, "Toy@HEAD", "Toy-G000")
    assert code == 0 and (again["child"], again["against"], again["exit_code"]) == ("Toy-G002", "Toy-G001", 0)
    assert (again["gates"], again["answers"]) == (here["gates"], here["answers"])
    assert (genesis["against"], genesis["answers"], genesis["verdict"]) == (None, None, "PASSED")
    assert registry.history("Toy") == before
    probes = toy.write("others.jsonl", [{"prompt": "Is it?", "answer": "nobody says this"}])
    code, (worse,), _ = started(evaluate, toy.home, "Toy-G002", "--against", "Toy-G000", "--probes", probes)
    assert worse["against"] == "Toy-G000" and code == 0
    assert [one["name"] for one in worse["gates"]["results"] if one["value"] is not None]


def test_a_generation_that_fails_a_gate_is_a_verdict(copy_of: Callable[..., Any], started: Any) -> None:
    toy = copy_of()
    path = toy.manifest(3, "continual_pretraining", parent=2, gates={"generalize": {"minimum": 1.0, "min_gain": -1.0}})
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "REJECTED"
    code, (told,), _ = started(evaluate, toy.home, "Toy-G003")
    assert (code, told["verdict"], told["exit_code"]) == (0, "REJECTED", 3) and "generalize" in told["detail"]
    code, told, said = started(evaluate, toy.home, "Toy-G009")
    assert (code, told) == (2, None) and "Toy-G009" in said
