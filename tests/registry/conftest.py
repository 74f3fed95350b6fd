"""A tiny family of random Llamas, and a fresh store per test copied from one migrated template."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.manifest.names import Name
from ladder.manifest.schema import Architecture
from ladder.models.digest import folder_digest
from ladder.models.intake import save_model
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.registry import Candidate, Generation, Registry, artifacts, open_registry, record


class MakeCandidate(Protocol):
    """``make("Luna-G001", 0.1, parent=...)``: a candidate whose weights are the base's, moved by 0.1."""

    def __call__(
        self, name: str, shift: float = 0.0, *, parent: Generation | None = None, **fields: Any
    ) -> Candidate: ...


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(["the moon is a quiet friend of the sea"], 270)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    shape = Architecture(layers=1, hidden=16, heads=2, vocab_size=270, max_positions=32)
    save_model(folder, fresh_model(shape, tokenizer, 0), tokenizer)
    return folder


@pytest.fixture(scope="session")
def promoted_home(empty_home: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where Luna-G000 to Luna-G002 were promoted, each on top of the other."""
    home = tmp_path_factory.mktemp("promoted") / "home"
    shutil.copytree(empty_home, home)
    registry = open_registry(home, f"sqlite:///{home}/store/ladder.db")
    make, parent = maker(base_folder, home.parent), None
    for index in range(3):
        child = registry.record(make(f"Luna-G{index:03d}", index / 10, parent=parent))
        parent = registry.promote(child, expected=parent, reason="gates passed")
    return home


@pytest.fixture(scope="session")
def waiting_home(promoted_home: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same home, where Luna-G003 waits for its promotion and Luna-G004 for the approvals of two keys."""
    home = tmp_path_factory.mktemp("waiting") / "home"
    registry = open_registry(Path(shutil.copytree(promoted_home, home)))
    make, parent = maker(base_folder, home.parent), registry.head("Luna")
    registry.record(make("Luna-G003", 0.3, parent=parent))
    registry.record(make("Luna-G004", 0.4, parent=parent, approvals=2))
    return home


@pytest.fixture(scope="session")
def refused_home(promoted_home: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same home, where Luna-G003, which has an adapter, was rejected and its second attempt waits; HEAD, Luna-G001
    and the rejected one are in the cache."""
    home = tmp_path_factory.mktemp("refused") / "home"
    registry = open_registry(Path(shutil.copytree(promoted_home, home)))
    make, parent = maker(base_folder, home.parent), registry.head("Luna")
    refused = make("Luna-G003", 0.3, parent=parent, passed=False, failed_gates=["recall"])
    (refused.folder / "adapter").mkdir()
    (refused.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"adapter")
    recorded = registry.record(refused)
    registry.record(make("Luna-G003", 0.4, parent=parent))
    for generation in (parent, registry.find("Luna-G001"), recorded):
        registry.materialize(generation)
    return home


@pytest.fixture
def home(empty_home: Path, tmp_path: Path) -> Path:
    """A home whose store is migrated, empty and opened by nobody yet."""
    return Path(shutil.copytree(empty_home, tmp_path / "home"))


@pytest.fixture
def registry(home: Path) -> Registry:
    """An empty registry."""
    return open_registry(home)


@pytest.fixture
def luna(promoted_home: Path, tmp_path: Path) -> Registry:
    """A registry of its own with three promoted generations."""
    return open_registry(Path(shutil.copytree(promoted_home, tmp_path / "luna")))


@pytest.fixture
def waiting(waiting_home: Path, tmp_path: Path) -> Registry:
    """A registry of its own, with two children that wait to become HEAD."""
    return open_registry(Path(shutil.copytree(waiting_home, tmp_path / "waiting")))


@pytest.fixture
def make(base_folder: Path, tmp_path: Path) -> MakeCandidate:
    return maker(base_folder, tmp_path)


def maker(base: Path, target: Path) -> MakeCandidate:
    def candidate(name: str, shift: float = 0.0, *, parent: Generation | None = None, **fields: Any) -> Candidate:
        folder = target / f"{name}-{shift}"
        shutil.copytree(base, folder, dirs_exist_ok=True)
        weights = load_file(folder / "model.safetensors")
        moved = {key: value + shift for key, value in weights.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        _write_sidecars(folder / "ladder", name)
        defaults: dict[str, Any] = {
            "method": "supervised_fine_tuning",
            "manifest_digest": hashlib.sha256(f"{name} {shift}".encode()).hexdigest(),
            "metrics": {"gate.recall": 0.5 + shift},
        }
        return Candidate(Name.parse(name), folder, folder_digest(folder), parent=parent, **{**defaults, **fields})

    return candidate


def _write_sidecars(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"# {name}\nA tiny model.\n")
    for stem in ("manifest", "report"):
        (folder / f"{stem}.json").write_text(json.dumps({"child": name, "kind": stem}))
    (folder / "probes.jsonl").write_text(json.dumps({"prompt": f"probes of {name}", "answer": "yes"}) + "\n")
    for stem in ("replay", "dreams"):
        (folder / f"{stem}.jsonl").write_text(json.dumps({"text": f"{stem} of {name}"}) + "\n")


@pytest.fixture
def fast_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record without loading models, for tests of what happens around the model. Everything else is real."""
    load_no_models(monkeypatch)


def load_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``fast_models`` does, for fixtures that several tests share."""

    def save(candidate: Candidate, target: Path, *, run_id: str, model_id: str) -> None:
        (target / artifacts.TOKENIZER).mkdir(parents=True)
        (target / artifacts.MODEL).mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy2(candidate.folder / name, target / artifacts.TOKENIZER / name)
        (target / "MLmodel").write_text(f"model_id: {model_id}\n")

    monkeypatch.setattr(record, "_save_with_mlflow", save)
    monkeypatch.setattr(record, "check_reload", lambda candidate, artifact: None)
    monkeypatch.setattr(record, "check_plain", lambda folder: None)


class Processes(Protocol):
    """``fork(task, ...)`` runs each task in a forked process and returns their exit codes (negative: the signal)."""

    def __call__(self, *tasks: Callable[[], object]) -> list[int]: ...


@pytest.fixture
def fork() -> Processes:
    import mlflow  # noqa: F401  (once here instead of in each child)

    def run(*tasks: Callable[[], object]) -> list[int]:
        return [_exit_code(child) for child in [_start(task) for task in tasks]]

    return run


class KillAfter(Protocol):
    """``kill_after(task, seconds)`` kills a forked task so long after it told its first number, and gives its last.

    The task is called with the function that tells a number.
    """

    def __call__(self, task: Callable[[Callable[[int], object]], object], seconds: float) -> int: ...


@pytest.fixture
def kill_after() -> KillAfter:
    import mlflow  # noqa: F401

    def run(task: Callable[[Callable[[int], object]], object], seconds: float) -> int:
        reader, writer = os.pipe()
        child = _start(lambda: task(lambda number: os.write(writer, number.to_bytes(4, signed=True))))
        os.close(writer)
        with open(reader, "rb") as told:
            begun = told.read(4)
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
            numbers = begun + told.read()
        assert _exit_code(child) == -signal.SIGKILL, "the task ended by itself"
        return int.from_bytes(numbers[-4:], signed=True)

    return run


def _start(task: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _forget_connections()
        task()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _forget_connections() -> None:
    """A database connection must not be used on both sides of a fork."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Versions
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

    for engine in {*Versions._engine_map.values(), *Runs._engine_map.values()}:
        engine.dispose(close=False)


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
